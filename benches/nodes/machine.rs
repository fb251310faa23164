//! The machine's facts, and tables.

use crate::support::Node;
use std::fs;
use std::time::Duration;

/// Ticks of `/proc/PID/stat` in a second: fixed for programs on Linux (`USER_HZ`, proc(5)).
const TICKS_PER_SECOND: f64 = 100.0;

/// What one has to know of the machine to read the figures.
pub(crate) fn facts() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processors
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown", |rest| rest.trim_start_matches([' ', '\t', ':']));
    format!("{cores} cores ({model}), Linux {}", kernel.trim())
}

/// Load averages of 1, 5 and 15 minutes.
pub(crate) fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace()
        .take(3)
        .collect::<Vec<_>>()
        .join(" ")
}

/// Seconds of processor time that a node has used so far.
pub(crate) fn processor_seconds(node: &Node) -> f64 {
    let text = fs::read_to_string(format!("/proc/{}/stat", node.pid())).unwrap();
    // the fields after the program's name, which may have spaces: utime is the 12th, stime the 13th
    let (_, rest) = text.rsplit_once(')').unwrap();
    let fields = rest.split_whitespace().skip(11).take(2);
    fields
        .map(|field| field.parse::<f64>().unwrap())
        .sum::<f64>()
        / TICKS_PER_SECOND
}

/// A table as Markdown has it.
pub(crate) fn table(heads: &[&str], rows: &[Vec<String>]) {
    println!("| {} |", heads.join(" | "));
    println!("|{}", " --- |".repeat(heads.len()));
    for row in rows {
        println!("| {} |", row.join(" | "));
    }
}

/// Median, 90th percentile and maximum, in milliseconds, and of how many.
pub(crate) fn quantiles(mut times: Vec<Duration>) -> Vec<String> {
    if times.is_empty() {
        return vec!["none".to_owned(); 4];
    }
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize];
    let shown = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1000.0);
    vec![
        shown(at(0.5)),
        shown(at(0.9)),
        shown(at(1.0)),
        times.len().to_string(),
    ]
}

/// Heads for [`quantiles`].
pub(crate) const QUANTILES: [&str; 4] = ["median", "p90", "max", "of"];

/// Seconds, for tables.
pub(crate) fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}
