//! Writers of several habits at one mount, each a thread; each ends at its first error, which is how it learns that the
//! node is gone.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// What a writer does again and again, each time with another number.
pub type Habit<W> = fn(&W, u64) -> io::Result<()>;

/// Running writers.
pub struct Crew {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Crew {
    /// Starts a thread for each habit. `number` makes their names and bytes new; `pace` is the pause after each
    /// operation.
    pub fn start<W: Clone + Send + 'static>(
        writer: &W,
        habits: &[Habit<W>],
        number: &Arc<AtomicU64>,
        pace: Duration,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let start = |work: &Habit<W>| {
            let (writer, work) = (writer.clone(), *work);
            let (stop, number) = (Arc::clone(&stop), Arc::clone(number));
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let next = number.fetch_add(1, Ordering::Relaxed);
                    if work(&writer, next).is_err() {
                        return;
                    }
                    std::thread::sleep(pace);
                }
            })
        };
        let threads = habits.iter().map(start).collect();
        Self { stop, threads }
    }

    /// Lets each finish what it is at, or fail at it.
    pub fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
    }
}
