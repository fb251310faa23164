//! A database whose every transaction is synced.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

/// Transactions on one database, and how many of them were answered.
pub struct Database {
    mode: &'static str,
    answered: Arc<AtomicU64>,
    client: Option<(Child, JoinHandle<()>)>,
}

fn name(mode: &str) -> String {
    format!("{mode}.sqlite")
}

/// Errors are told where answers are, in their order.
fn sqlite(path: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "exec sqlite3 \"$0\" \"$@\" 2>&1"]);
    command.arg(path).stdin(Stdio::piped());
    command.stdout(Stdio::piped());
    command
}

/// The next answer, and whether the transaction before it was refused: it may be there all the same, and is not promised.
fn next_answer(lines: &mut impl Iterator<Item = std::io::Result<String>>) -> Option<(u64, bool)> {
    let mut is_refused = false;
    loop {
        let line = lines.next()?.ok()?;
        if let Some(number) = line.strip_prefix("answered|") {
            return Some((number.parse().ok()?, is_refused));
        }
        is_refused |= line.to_lowercase().contains("error");
    }
}

impl Database {
    /// With this journal mode of SQLite.
    pub fn new(mode: &'static str) -> Self {
        Self {
            mode,
            answered: Arc::default(),
            client: None,
        }
    }

    /// Goes on where it was. An answer counts while `ledger_is_open`.
    pub fn start(&mut self, mount: &Path, ledger_is_open: &Arc<AtomicBool>) {
        let mut child = sqlite(&mount.join(name(self.mode))).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        // in the mode `delete`, FULL does not sync the folder from which the rollback journal goes
        let setup = format!(
            "PRAGMA journal_mode={}; PRAGMA synchronous=EXTRA;
             CREATE TABLE IF NOT EXISTS t(n INTEGER PRIMARY KEY, b BLOB);\n",
            self.mode
        );
        let (answered, is_open) = (Arc::clone(&self.answered), Arc::clone(ledger_is_open));
        let worker = std::thread::spawn(move || {
            let mut lines = output.lines();
            let insert = "INSERT INTO t(b) VALUES(randomblob(abs(random()) % 5000));
                 SELECT 'answered', max(n) FROM t;\n";
            let mut say = |text: &str| input.write_all(text.as_bytes()).is_ok();
            if !say(&setup) {
                return;
            }
            while say(insert)
                && let Some((number, is_refused)) = next_answer(&mut lines)
                && is_open.load(Ordering::SeqCst)
            {
                if !is_refused {
                    answered.fetch_max(number, Ordering::SeqCst);
                }
            }
        });
        self.client = Some((child, worker));
    }

    /// No more transactions.
    pub fn end(&mut self) {
        if let Some((mut child, worker)) = self.client.take() {
            let _ = child.kill();
            worker.join().unwrap();
            let _ = child.wait();
        }
    }

    /// It is sound, and has each transaction that was answered. How many those are.
    #[track_caller]
    pub fn check(&self, mount: &Path, when: &str) -> u64 {
        let promised = self.answered.load(Ordering::SeqCst);
        let path = mount.join(name(self.mode));
        if promised == 0 && !path.exists() {
            return 0;
        }
        let mut command = sqlite(&path);
        let query = "PRAGMA integrity_check; SELECT count(*), ifnull(max(n), 0) FROM t;";
        let output = command.arg(query).stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if promised == 0 && !said.contains('|') {
            return 0;
        }
        let mode = self.mode;
        let numbers = said
            .strip_prefix("ok\n")
            .and_then(|rest| rest.trim().split_once('|'));
        let (count, last) = numbers.unwrap_or_else(|| panic!("{when}, {mode}: {said:?}"));
        let last: u64 = last.parse().unwrap();
        assert_eq!(count, last.to_string(), "{when}, {mode}");
        assert!(last >= promised, "{when}, {mode}: {last} of {promised}");
        promised
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.end();
    }
}
