//! The same with 6 GB: what the everyday tests show with a few megabytes also holds where counters, queues and
//! memory could overflow.

use crate::clients::{ARIA2, LIBRQBIT, LIBTORRENT, TRANSMISSION};
use crate::swarm::{downloads, serves_a_read};

/// More than 32 bits count, in pieces of 512 KiB, the last one shorter.
const LARGE: u64 = 6_000_000_000;

#[test]
#[ignore = "long: moves gigabytes"]
fn libtorrent_downloads_six_gigabytes() {
    downloads(&LIBTORRENT, LARGE);
}

#[test]
#[ignore = "long: moves gigabytes"]
fn six_gigabytes_are_read_from_libtorrent() {
    serves_a_read(&LIBTORRENT, LARGE);
}

#[test]
#[ignore = "long: moves gigabytes"]
fn aria2_downloads_six_gigabytes() {
    downloads(&ARIA2, LARGE);
}

#[test]
#[ignore = "long: moves gigabytes"]
fn six_gigabytes_are_read_from_aria2() {
    serves_a_read(&ARIA2, LARGE);
}

#[test]
#[ignore = "long: moves gigabytes"]
fn transmission_downloads_six_gigabytes() {
    downloads(&TRANSMISSION, LARGE);
}

#[test]
#[ignore = "long: moves gigabytes"]
fn six_gigabytes_are_read_from_transmission() {
    serves_a_read(&TRANSMISSION, LARGE);
}

#[test]
#[ignore = "long: moves gigabytes"]
fn librqbit_downloads_six_gigabytes() {
    downloads(&LIBRQBIT, LARGE);
}

#[test]
#[ignore = "long: moves gigabytes"]
fn six_gigabytes_are_read_from_librqbit() {
    serves_a_read(&LIBRQBIT, LARGE);
}
