//! What a client asks: the request line of `git://`, then commands of protocol v2 (gitprotocol-v2).

use super::ExchangeError;
use super::pktline::{Line, Reader};
use gix::ObjectId;
use std::io::Read;

/// Most bytes of one line of a request: a ref name is the longest thing in it.
const LINE_BYTES_MAX: usize = 1024;

/// The line that a `git://` client begins with (gitprotocol-pack, "Git Transport").
#[derive(Debug, PartialEq, Eq)]
pub(super) struct DaemonLine {
    /// The path as sent, without slashes around it.
    pub(super) name: Vec<u8>,
    /// The protocol's version: 0 where none is named.
    pub(super) version: u8,
}

/// What every request line of a fetching client begins with.
const UPLOAD_PACK: &[u8] = b"git-upload-pack ";

impl DaemonLine {
    /// Whether a connection's first packet is meant to be one.
    pub(super) fn is(line: &[u8]) -> bool {
        line.starts_with(b"git-")
    }

    /// `git-upload-pack /NAME\0host=HOST\0\0version=2\0`.
    pub(super) fn parse(line: &[u8]) -> Result<Self, ExchangeError> {
        let rest = line
            .strip_prefix(UPLOAD_PACK)
            .ok_or_else(|| ExchangeError::protocol("only git-upload-pack is served"))?;
        let mut parts = rest.split(|byte| *byte == 0);
        let path = parts.next().unwrap_or_default();
        let path = path.strip_suffix(b"\n").unwrap_or(path);
        let version = parts
            .filter_map(|part| part.strip_prefix(b"version="))
            .next_back()
            .map_or(0, |digits| match digits {
                [digit @ b'0'..=b'9'] => digit - b'0',
                _ => u8::MAX,
            });
        Ok(Self {
            name: trim_slashes(path).to_vec(),
            version,
        })
    }

    /// Whether it asks for the volume of that name; `.git` may be added, as people are used to.
    pub(super) fn names(&self, volume: &str) -> bool {
        let volume = volume.as_bytes();
        self.name == volume || self.name.strip_suffix(b".git") == Some(volume)
    }
}

fn trim_slashes(path: &[u8]) -> &[u8] {
    let path = path.strip_prefix(b"/").unwrap_or(path);
    path.strip_suffix(b"/").unwrap_or(path)
}

/// One command of protocol v2.
#[derive(Debug)]
pub(super) enum Request {
    /// `command=ls-refs`.
    Refs(RefsRequest),
    /// `command=fetch`.
    Fetch(FetchRequest),
}

/// The arguments of `ls-refs`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct RefsRequest {
    /// Tell what HEAD stands for.
    pub(super) symrefs: bool,
    /// Tell of a HEAD that stands for nothing yet.
    pub(super) unborn: bool,
    /// Only refs that begin so; all where there is none.
    pub(super) prefixes: Vec<Vec<u8>>,
}

/// The arguments of `fetch` that are served.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct FetchRequest {
    /// Commits to be sent, with all they need.
    pub(super) wants: Vec<ObjectId>,
    /// Commits that the client has, with all they need.
    pub(super) haves: Vec<ObjectId>,
    /// Commits whose parents the client does not have.
    pub(super) shallow: Vec<ObjectId>,
    /// Send only so many commits of each chain, at least 1.
    pub(super) depth: Option<usize>,
    /// The client has said all it has to say.
    pub(super) done: bool,
    /// Say nothing for people to read beside the pack.
    pub(super) no_progress: bool,
    /// The client reads deltas on what is earlier in the pack.
    pub(super) ofs_delta: bool,
}

/// Reads one request, of at most `lines_max` lines, whose first packet has been read already where `first` is
/// given. `None`: the client is done.
pub(super) fn read(
    lines: &mut Reader<impl Read>,
    first: Option<Vec<u8>>,
    lines_max: usize,
) -> Result<Option<Request>, ExchangeError> {
    let command = match first {
        Some(line) => line,
        None => match lines.next()? {
            None | Some(Line::Flush) => return Ok(None),
            Some(line) => line.text().map(<[u8]>::to_vec).unwrap_or_default(),
        },
    };
    let mut request = match command.strip_suffix(b"\n").unwrap_or(&command) {
        b"command=ls-refs" => Request::Refs(RefsRequest::default()),
        b"command=fetch" => Request::Fetch(FetchRequest::default()),
        _ => return Err(ExchangeError::protocol("a command that is not served")),
    };
    let mut in_arguments = false;
    for _ in 0..lines_max {
        match lines.expect("a request")? {
            Line::Flush => return Ok(Some(request)),
            Line::Delimiter if !in_arguments => in_arguments = true,
            Line::Data(bytes) if bytes.len() > LINE_BYTES_MAX => {
                return Err(ExchangeError::protocol("an overlong line in a request"));
            }
            line @ Line::Data(_) => {
                let text = line.text().unwrap_or_default();
                if in_arguments {
                    request.argument(text)?;
                } else {
                    capability(text)?;
                }
            }
            _ => {
                return Err(ExchangeError::protocol(
                    "a packet that has no place in a request",
                ));
            }
        }
    }
    Err(ExchangeError::Limit {
        what: "lines in one request",
        limit: lines_max as u64,
    })
}

fn capability(text: &[u8]) -> Result<(), ExchangeError> {
    match text.strip_prefix(b"object-format=") {
        Some(format) if format != b"sha1" => Err(ExchangeError::protocol(
            "only the object format sha1 is served",
        )),
        _ => Ok(()),
    }
}

impl Request {
    fn argument(&mut self, text: &[u8]) -> Result<(), ExchangeError> {
        match self {
            Self::Refs(request) => request.argument(text),
            Self::Fetch(request) => request.argument(text),
        }
    }
}

impl RefsRequest {
    fn argument(&mut self, text: &[u8]) -> Result<(), ExchangeError> {
        match text {
            b"symrefs" => self.symrefs = true,
            b"unborn" => self.unborn = true,
            // there are no tags, so nothing that could be peeled
            b"peel" => {}
            _ => match text.strip_prefix(b"ref-prefix ") {
                Some(prefix) => self.prefixes.push(prefix.to_vec()),
                None => return Err(ExchangeError::protocol("an unknown argument of ls-refs")),
            },
        }
        Ok(())
    }

    /// Whether a ref is asked for.
    pub(super) fn asks_for(&self, name: &[u8]) -> bool {
        self.prefixes.is_empty() || self.prefixes.iter().any(|prefix| name.starts_with(prefix))
    }
}

impl FetchRequest {
    fn argument(&mut self, text: &[u8]) -> Result<(), ExchangeError> {
        let (word, value) = match text.iter().position(|byte| *byte == b' ') {
            Some(space) => (&text[..space], &text[space + 1..]),
            None => (text, &[][..]),
        };
        match word {
            b"want" => self.wants.push(parse_id(value)?),
            b"have" => self.haves.push(parse_id(value)?),
            b"shallow" => self.shallow.push(parse_id(value)?),
            b"deepen" => self.depth = Some(parse_depth(value)?),
            b"done" => self.done = true,
            b"no-progress" => self.no_progress = true,
            b"ofs-delta" => self.ofs_delta = true,
            // hints that a server may leave unused: a pack that is complete in itself is stored as it comes
            b"thin-pack" | b"include-tag" => {}
            b"deepen-since" | b"deepen-not" | b"deepen-relative" => {
                return Err(ExchangeError::protocol(
                    "of the ways to deepen only --depth is served",
                ));
            }
            _ => return Err(ExchangeError::protocol("an unknown argument of fetch")),
        }
        Ok(())
    }
}

fn parse_depth(value: &[u8]) -> Result<usize, ExchangeError> {
    std::str::from_utf8(value)
        .ok()
        .and_then(|text| text.parse::<u32>().ok())
        .filter(|depth| *depth > 0)
        .map(|depth| depth as usize)
        .ok_or_else(|| ExchangeError::protocol("a depth that is not a positive number"))
}

/// An id of 40 hex digits.
pub(super) fn parse_id(value: &[u8]) -> Result<ObjectId, ExchangeError> {
    ObjectId::from_hex(value)
        .ok()
        .filter(|id| id.kind() == gix::hash::Kind::Sha1)
        .ok_or_else(|| ExchangeError::protocol("an object id that is not 40 hex digits"))
}

/// Any bytes as a connection's requests: no panic, and no more lines than allowed.
pub fn fuzz_request(bytes: &[u8]) {
    if let Ok(daemon) = DaemonLine::parse(bytes) {
        let _ = daemon.names("volume");
    }
    let mut lines = Reader::new(bytes);
    while let Ok(Some(request)) = read(&mut lines, None, 50) {
        if let Request::Fetch(fetch) = request {
            assert!(fetch.wants.len() + fetch.haves.len() + fetch.shallow.len() <= 50);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::pktline;
    use super::*;

    fn wire(lines: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        for line in lines {
            match *line {
                b"0001" => pktline::special(&mut out, &Line::Delimiter).unwrap(),
                b"0000" => pktline::special(&mut out, &Line::Flush).unwrap(),
                text => pktline::data(&mut out, text).unwrap(),
            }
        }
        out
    }

    #[test]
    fn daemon_lines() {
        let line = DaemonLine::parse(b"git-upload-pack /big\0host=h:1\0\0version=2\0").unwrap();
        assert_eq!((line.name.as_slice(), line.version), (&b"big"[..], 2));
        assert!(line.names("big") && !line.names("bi"));
        let line = DaemonLine::parse(b"git-upload-pack /big.git/\0host=h\0").unwrap();
        assert_eq!(line.version, 0);
        assert!(line.names("big"));
        assert!(DaemonLine::parse(b"git-receive-pack /big\0").is_err());
    }

    #[test]
    fn a_fetch_with_all_that_is_served() {
        let id = ObjectId::Sha1([0x5a; 20]);
        let have = format!("have {id}\n");
        let bytes = wire(&[
            b"command=fetch",
            b"agent=git/2",
            b"object-format=sha1",
            b"0001",
            b"thin-pack",
            b"ofs-delta",
            b"deepen 3\n",
            have.as_bytes(),
            b"done\n",
            b"0000",
        ]);
        let request = read(&mut Reader::new(&bytes[..]), None, 10).unwrap();
        let Some(Request::Fetch(fetch)) = request else {
            panic!()
        };
        assert_eq!((fetch.depth, fetch.done), (Some(3), true));
        assert!(fetch.ofs_delta && !fetch.no_progress);
        assert_eq!(fetch.haves, [id]);
    }

    #[test]
    fn bad_requests_are_refused() {
        for bad in [
            &[&b"command=object-info"[..], b"0000"][..],
            &[b"command=fetch", b"0001", b"want zz", b"0000"],
            &[b"command=fetch", b"0001", b"deepen 0", b"0000"],
            &[b"command=fetch", b"0001", b"deepen-since 1", b"0000"],
            &[b"command=fetch", b"0001", b"0001", b"0000"],
            &[b"command=fetch", b"object-format=sha256", b"0000"],
            &[b"command=fetch"],
        ] {
            assert!(
                read(&mut Reader::new(&wire(bad)[..]), None, 10).is_err(),
                "{bad:?}"
            );
        }
        let mut many = vec![&b"command=fetch"[..], b"0001"];
        many.extend(std::iter::repeat_n(&b"done"[..], 20));
        many.push(b"0000");
        let result = read(&mut Reader::new(&wire(&many)[..]), None, 10);
        assert!(matches!(result, Err(ExchangeError::Limit { .. })));
    }
}
