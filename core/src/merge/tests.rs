//! One case for each rule.
