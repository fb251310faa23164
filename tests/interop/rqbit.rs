//! The full librqbit client, in a thread of the test that lives on the client's host.

use crate::clients::{Client, Job, PORT, enter};
use librqbit::{AddTorrent, AddTorrentOptions, ListenerOptions, Session, SessionOptions};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::oneshot;

/// A session that ends with this.
pub(crate) struct Running {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.take();
        let ended = self.thread.take().map(std::thread::JoinHandle::join);
        assert!(
            ended.is_none_or(|ended| ended.is_ok()) || std::thread::panicking(),
            "librqbit's thread panicked"
        );
    }
}

/// Starts the client.
pub(crate) fn librqbit(job: &Job) -> Client {
    let namespace = job.lab.namespace_file(job.host);
    let metainfo = std::fs::read(job.torrent).unwrap();
    let folder = job.folder.to_owned();
    let node: SocketAddr = job.node.parse().unwrap();
    let (stop, stopped) = oneshot::channel();
    let thread = std::thread::spawn(move || {
        // the runtime's threads are made by this one and so live there, too
        enter(&namespace);
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(run(folder, metainfo, node, stopped));
        runtime.shutdown_timeout(Duration::from_secs(1));
    });
    Client::Thread(Running {
        stop: Some(stop),
        thread: Some(thread),
    })
}

async fn run(folder: PathBuf, metainfo: Vec<u8>, node: SocketAddr, stopped: oneshot::Receiver<()>) {
    let options = SessionOptions {
        dht: None,
        disable_trackers: true,
        disable_local_service_discovery: true,
        listen: Some(ListenerOptions {
            listen_addr: SocketAddr::from(([0, 0, 0, 0], PORT)),
            ipv4_only: true,
            ..ListenerOptions::default()
        }),
        ..SessionOptions::default()
    };
    let session = Session::new_with_opts(folder, options).await.unwrap();
    let options = AddTorrentOptions {
        overwrite: true,
        initial_peers: Some(vec![node]),
        ..AddTorrentOptions::default()
    };
    let added = session.add_torrent(AddTorrent::from_bytes(metainfo), Some(options));
    let _torrent = added.await.unwrap().into_handle().unwrap();
    let _ = stopped.await;
    session.stop().await;
}
