"""One libtorrent session: `seed TORRENT FILE ADDRESS` or `leech TORRENT FOLDER ADDRESS PEER`.

Prints figures, one to a line: the seeder its hashing time in seconds and its port; the leecher its seconds.
"""
import os
import sys
import time

import libtorrent as lt

role, torrent, path, address = sys.argv[1:5]
session = lt.session({
    "listen_interfaces": address + ":0",
    "enable_dht": False,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    # what our nodes have between them, too: plain TCP
    "enable_outgoing_utp": False,
    "enable_incoming_utp": False,
    "in_enc_policy": 2,
    "out_enc_policy": 2,
    "alert_mask": lt.alert.category_t.status_notification,
})


def add(folder, flags):
    parameters = lt.add_torrent_params()
    parameters.ti = lt.torrent_info(torrent)
    parameters.save_path = folder
    parameters.flags = (parameters.flags | flags) & ~lt.torrent_flags.auto_managed & ~lt.torrent_flags.paused
    return session.add_torrent(parameters)


if role == "seed":
    start = time.monotonic()
    files = lt.file_storage()
    lt.add_files(files, path)
    made = lt.create_torrent(files, flags=lt.create_torrent.v1_only)
    lt.set_piece_hashes(made, os.path.dirname(path))
    with open(torrent, "wb") as output:
        output.write(lt.bencode(made.generate()))
    hashed = time.monotonic() - start
    handle = add(os.path.dirname(path), lt.torrent_flags.seed_mode)
    while session.listen_port() == 0 or not handle.status().is_seeding:
        time.sleep(0.01)
    print(hashed, flush=True)
    print(session.listen_port(), flush=True)
    while True:
        time.sleep(60)

start = time.monotonic()
handle = add(path, 0)
host, port = sys.argv[5].rsplit(":", 1)
handle.connect_peer((host, int(float(port))))
while not handle.status().is_seeding:
    session.wait_for_alert(20)
    session.pop_alerts()
print(time.monotonic() - start, flush=True)
