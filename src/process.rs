//! Other processes, as /proc/PID/status has them (see proc(5)).

/// Whether a process has died, gone or not: the kernel may have it wait for ever, with one of its threads, or with the core
/// that it is about to write. One that nobody knows is not dead.
pub(crate) fn is_dead(process: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"));
    status.is_ok_and(|status| says_dead(&status))
}

fn says_dead(status: &str) -> bool {
    let is_telling = |line: &str| line.starts_with("State:\tZ") || line == "CoreDumping:\t1";
    status.lines().any(is_telling)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dead_and_those_who_leave_a_core_are_told_from_the_living() {
        assert!(says_dead("Name:\ta\nState:\tZ (zombie)\nPid:\t1\n"));
        assert!(says_dead(
            "Name:\ta\nState:\tI (idle)\nCoreDumping:\t1\nThreads:\t2\n"
        ));
        assert!(!says_dead(
            "Name:\tState:\tZ\nState:\tD (disk sleep)\nCoreDumping:\t0\nThreads:\t2\n"
        ));
        assert!(!is_dead(std::process::id()));
    }
}
