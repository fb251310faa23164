//! One node of a `DelugeFS` volume: the parts that the program is composed of.

pub mod filesystem;
