//! The command line: raw arguments, then checked ones.

mod arguments;
pub mod background;
mod scrub;
pub mod units;

pub use arguments::{
    Arguments, Command, NodeArguments, Options, ScrubArguments, Select, SetArguments,
    SignersArguments, StatusArguments, StopArguments, UsageError, WhereArguments, apply_setting,
};
pub use scrub::scrub;
