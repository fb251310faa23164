//! `delugefs`
fn main() {}
