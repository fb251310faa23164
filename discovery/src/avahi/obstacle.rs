//! Why Avahi does not work here, and what the owner can do about it.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

const BUS_ADDRESS: &str = "DBUS_SYSTEM_BUS_ADDRESS";
const BUS_SOCKET: &str = "/var/run/dbus/system_bus_socket";

const STILL: &str =
    "Nodes on this host are found all the same; others can be named with --peer HOST:PORT";

/// No session with avahi-daemon: D-Bus is not there, or avahi-daemon is not on it.
pub(super) fn no_session(reason: &str) -> String {
    let address = std::env::var(BUS_ADDRESS).ok();
    let socket = bus_socket(address.as_deref());
    match socket.filter(|socket| !answers(socket)) {
        Some(socket) => format!(
            "other hosts will not be found: Avahi is reached over D-Bus, and no D-Bus answers at {} \
             (apt-get install dbus avahi-daemon; systemctl start dbus avahi-daemon). {STILL}",
            socket.display()
        ),
        None => format!(
            "other hosts will not be found: avahi-daemon does not answer on D-Bus ({reason}) \
             (apt-get install avahi-daemon; systemctl start avahi-daemon). {STILL}"
        ),
    }
}

/// avahi-daemon answers, but our own name does not come back from it.
pub(super) fn own_name_missing(reason: Option<&str>) -> String {
    let reason = reason
        .map(|reason| format!(" ({reason})"))
        .unwrap_or_default();
    format!(
        "Avahi does not hear this node's own name{reason}: other hosts will not find it. \
         Either no network interface is up, or avahi-daemon may not publish (see disable-publishing, \
         disable-user-service-publishing and allow-interfaces in /etc/avahi/avahi-daemon.conf). {STILL}"
    )
}

/// The first socket of a D-Bus address; `None` where D-Bus is reached in another way.
fn bus_socket(address: Option<&str>) -> Option<PathBuf> {
    let Some(address) = address else {
        return Some(BUS_SOCKET.into());
    };
    let first = address.split(';').next()?;
    let keys = first.strip_prefix("unix:")?;
    let path = keys.split(',').find_map(|key| key.strip_prefix("path="))?;
    Some(path.into())
}

fn answers(socket: &Path) -> bool {
    UnixStream::connect(socket).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bus_is_where_its_address_says() {
        let socket = |address| bus_socket(Some(address)).map(|path| path.display().to_string());
        assert_eq!(socket("unix:path=/a/b").as_deref(), Some("/a/b"));
        assert_eq!(
            socket("unix:guid=1,path=/a;unix:path=/b").as_deref(),
            Some("/a")
        );
        assert_eq!(socket("tcp:host=x,port=1"), None);
        assert_eq!(bus_socket(None).as_deref(), Some(Path::new(BUS_SOCKET)));
    }
}
