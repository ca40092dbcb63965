//! Which port a local server gets: its last one when that is free, so that saved URLs keep working.

use std::{fs, net::TcpListener, path::Path};

/// Below Linux' ephemeral ports, so that no outgoing connection takes a server's port between two starts.
const PORT_FIRST: u16 = 15_400;
const PORTS: u16 = 4_000;

/// Ports tried in one start. That many taken in a row means that binding fails for another reason.
const TRIES: u16 = 64;

/// Remembers the port in the server's folder.
const PORT_FILE: &str = "port";

/// Free ports for the server in `folder`, to be tried in this order. Another process may still take one first.
pub fn free_ports(folder: &Path) -> impl Iterator<Item = u16> {
    let start = u16::try_from(digest(folder.as_os_str().as_encoded_bytes()) % u64::from(PORTS)).unwrap_or(0);
    let own = (0..TRIES).map(move |step| PORT_FIRST + (start + step) % PORTS);
    remembered(folder).into_iter().chain(own).filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
}

/// Makes `port` the first choice of the next start. Not worth failing for.
pub fn remember(folder: &Path, port: u16) {
    let _ = fs::write(folder.join(PORT_FILE), format!("{port}\n"));
}

fn remembered(folder: &Path) -> Option<u16> {
    fs::read_to_string(folder.join(PORT_FILE)).ok()?.trim().parse().ok().filter(|port| *port != 0)
}

/// FNV-1a: the same for one folder in every build.
pub fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remembered_port_comes_first_unless_it_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let usual: Vec<u16> = free_ports(folder.path()).take(3).collect();
        assert!(usual.iter().all(|port| (PORT_FIRST..PORT_FIRST + PORTS).contains(port)), "{usual:?}");
        let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        remember(folder.path(), port);
        assert_ne!(free_ports(folder.path()).next(), Some(port));
        drop(taken);
        assert_eq!(free_ports(folder.path()).next(), Some(port));
    }

    #[test]
    fn a_damaged_note_is_ignored() {
        let folder = tempfile::tempdir().unwrap();
        for note in ["0", "70000", "port", ""] {
            fs::write(folder.path().join(PORT_FILE), note).unwrap();
            assert_eq!(remembered(folder.path()), None, "{note}");
        }
    }

    #[test]
    fn the_digest_is_fnv_1a() {
        assert_eq!(digest(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
