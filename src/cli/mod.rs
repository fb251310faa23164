//! The command line: raw arguments, then checked ones.

mod arguments;
pub mod background;
pub mod units;

pub use arguments::{
    Arguments, Command, NodeArguments, Options, Select, SetArguments, SignersArguments,
    StatusArguments, StopArguments, UsageError, WhereArguments, apply_setting,
};
