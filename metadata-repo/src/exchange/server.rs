//! The serving side: `ls-refs` and `fetch` of Git's protocol v2 (gitprotocol-v2), for stock git and for nodes.

use super::history::{History, Query, Selection};
use super::pack_writer::{self, Copies};
use super::pktline::{self, BandWriter, Line, Reader};
use super::progress::Progress;
use super::request::{self, DaemonLine, FetchRequest, RefsRequest, Request};
use super::store::Objects;
use super::tree::walk_new;
use super::{ExchangeError, GitStore, ServeLimits, refs};
use crate::repository::packs::table::Table;
use gix::ObjectId;
use gix::objs::Kind;
use std::collections::HashSet;
use std::io::{BufReader, BufWriter, Read, Write};

/// How to serve.
#[derive(Debug, Clone, Default)]
pub struct ServeOptions {
    /// The volume's name: what the path of a `git://` address has to be. (Nodes send no path.)
    pub name: String,
    /// What a client may ask for.
    pub limits: ServeLimits,
}

/// What one connection has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Served {
    /// Requests answered.
    pub requests: usize,
    /// Objects sent, in all packs.
    pub objects: usize,
}

/// Bytes gathered before they go to the stream.
const BUFFER_BYTES: usize = 128 * 1024;

/// Fewer objects are not looked for in packs: compressing them takes less than listing all that is there.
const COPIED_MIN: usize = 1000;

/// Most bytes of an error that a client is told.
const COMPLAINT_BYTES_MAX: usize = 400;

/// Serves one connection until the client is done. The client speaks first: a `git://` request line, or at
/// once a command. Timeouts are the streams'.
pub(crate) fn serve_from(
    store: &dyn GitStore,
    read: impl Read,
    write: impl Write,
    options: &ServeOptions,
) -> Result<Served, ExchangeError> {
    let mut write = BufWriter::with_capacity(BUFFER_BYTES, write);
    let mut connection = Connection {
        store,
        options,
        out: &mut write,
        advertised: HashSet::new(),
        served: Served::default(),
    };
    let result = connection.run(&mut Reader::new(BufReader::new(read)));
    let served = connection.served;
    if let Err(error) = &result {
        complain(&mut write, error);
    }
    write.flush().map_err(ExchangeError::Connection)?;
    result.map(|()| served)
}

/// Tells the client why the connection ends, as far as it concerns it and if it still listens.
fn complain(out: &mut dyn Write, error: &ExchangeError) {
    if let Some(text) = complaint("ERR ", error) {
        let _ = pktline::data(out, &text);
    }
}

/// What the client is told of an error, after `prefix`; nothing where it is gone.
fn complaint(prefix: &str, error: &ExchangeError) -> Option<Vec<u8>> {
    let text = match error {
        ExchangeError::Connection(_) | ExchangeError::Truncated(_) => return None,
        ExchangeError::Repository(_) => format!("{prefix}this node's repository failed"),
        ExchangeError::Protocol(why) => format!("{prefix}{why}"),
        other => format!("{prefix}{other}"),
    };
    let mut text = text.into_bytes();
    text.truncate(COMPLAINT_BYTES_MAX);
    Some(text)
}

struct Connection<'a> {
    store: &'a dyn GitStore,
    options: &'a ServeOptions,
    out: &'a mut dyn Write,
    /// Every commit named to this client: it may ask for it, even if its ref has moved meanwhile.
    advertised: HashSet<ObjectId>,
    served: Served,
}

impl Connection<'_> {
    fn run(&mut self, lines: &mut Reader<impl Read>) -> Result<(), ExchangeError> {
        let mut first = match lines.next()? {
            None | Some(Line::Flush) => return Ok(()),
            Some(line) => Some(line.text().unwrap_or_default().to_vec()),
        };
        if let Some(line) = first.take_if(|line| DaemonLine::is(line)) {
            self.check_daemon_line(&DaemonLine::parse(&line)?)?;
        }
        self.advertise()?;
        let limits = &self.options.limits;
        for _ in 0..limits.requests_max {
            match request::read(lines, first.take(), limits.request_lines_max)? {
                None => return Ok(()),
                Some(Request::Refs(request)) => self.list(&request)?,
                Some(Request::Fetch(request)) => self.fetch(&request)?,
            }
            self.out.flush().map_err(ExchangeError::Connection)?;
            self.served.requests += 1;
        }
        Err(ExchangeError::Limit {
            what: "requests on one connection",
            limit: limits.requests_max as u64,
        })
    }

    fn check_daemon_line(&self, line: &DaemonLine) -> Result<(), ExchangeError> {
        if !line.names(&self.options.name) {
            return Err(ExchangeError::protocol(
                "there is no volume of that name here",
            ));
        }
        if line.version != 2 {
            return Err(ExchangeError::protocol(
                "only Git's protocol version 2 is served: use git 2.26 or later, or git -c protocol.version=2",
            ));
        }
        Ok(())
    }

    fn advertise(&mut self) -> Result<(), ExchangeError> {
        for line in [
            "version 2\n",
            "agent=delugefs\n",
            "ls-refs=unborn\n",
            "fetch=shallow\n",
            "object-format=sha1\n",
        ] {
            pktline::data(self.out, line.as_bytes())?;
        }
        pktline::special(self.out, &Line::Flush)?;
        self.out.flush().map_err(ExchangeError::Connection)
    }

    fn list(&mut self, request: &RefsRequest) -> Result<(), ExchangeError> {
        let repository = self.store.git();
        let main = refs::target(&repository, refs::MAIN)?;
        let symref = if request.symrefs {
            format!(" symref-target:{}", refs::MAIN)
        } else {
            String::new()
        };
        let mut named = Vec::new();
        match main {
            Some(id) => {
                named.push((id, "HEAD".to_owned(), symref));
                named.push((id, refs::MAIN.to_owned(), String::new()));
            }
            None if request.unborn && request.asks_for(b"HEAD") => {
                pktline::data(self.out, format!("unborn HEAD{symref}\n").as_bytes())?;
            }
            None => {}
        }
        for (incarnation, id) in refs::authors(&repository)? {
            named.push((id, format!("{}{incarnation}", refs::AUTHORS), String::new()));
        }
        for (id, name, attribute) in named {
            self.advertised.insert(id);
            if request.asks_for(name.as_bytes()) {
                pktline::data(self.out, format!("{id} {name}{attribute}\n").as_bytes())?;
            }
        }
        pktline::special(self.out, &Line::Flush)
    }

    fn fetch(&mut self, request: &FetchRequest) -> Result<(), ExchangeError> {
        if request.wants.is_empty() {
            return Err(ExchangeError::protocol("a fetch that wants nothing"));
        }
        let mut repository = self.store.git();
        let mut common = Vec::new();
        for have in &request.haves {
            if repository.kind_of(have)? == Some(Kind::Commit) {
                common.push(*have);
            }
        }
        let negotiating = !request.done && !request.haves.is_empty();
        if negotiating && common.is_empty() {
            return self.acknowledge(&common);
        }
        let cut = refs::cut(&repository)?;
        // what is left out is told before the pack: only then is the walk over history silent
        let is_silent = request.depth.is_some() || !cut.is_empty();
        let mut objects = repository.clone();
        let mut history = History::new(&mut objects, cut, self.options.limits.commits_max);
        self.check_wants(&repository, &mut history, request)?;
        if negotiating {
            self.acknowledge(&common)?;
        }
        let query = Query {
            wants: request.wants.clone(),
            haves: common,
            shallow: request.shallow.iter().copied().collect(),
            depth: request.depth,
        };
        let selection = match is_silent {
            true => Some(self.select_silently(&mut history, &query)?),
            false => None,
        };
        pktline::data(self.out, b"packfile\n")?;
        let (asked, store) = ((&query, request), &mut repository);
        let result = self.send_selected(store, &mut history, selection, asked);
        if let Some(text) = result.as_ref().err().and_then(|it| complaint("\x03", it)) {
            pktline::data(self.out, &text)?;
        }
        result
    }

    fn select_silently(
        &mut self,
        history: &mut History<'_>,
        query: &Query,
    ) -> Result<Selection, ExchangeError> {
        let selection = history.select(query)?;
        if query.depth.is_some() || !selection.shallow.is_empty() {
            self.tell_shallow(&selection)?;
        }
        Ok(selection)
    }

    /// Lists what is asked for, saying so, and sends it.
    fn send_selected(
        &mut self,
        repository: &mut gix::Repository,
        history: &mut History<'_>,
        selection: Option<Selection>,
        (query, request): (&Query, &FetchRequest),
    ) -> Result<(), ExchangeError> {
        let limits = &self.options.limits;
        let mut progress = Progress::begin(self.out, request, limits.silence_max)?;
        let selection = match selection {
            Some(selection) => selection,
            None => history.select_telling(query, &mut |commits| progress.walked(commits))?,
        };
        let ids = list_objects(history, &selection, limits.objects_max, &mut progress)?;
        self.send_pack(repository, &ids, request)
    }

    /// A client may ask for what was advertised, and for what lies below it.
    fn check_wants(
        &self,
        repository: &gix::Repository,
        history: &mut History<'_>,
        request: &FetchRequest,
    ) -> Result<(), ExchangeError> {
        let wants = request
            .wants
            .iter()
            .filter(|id| !self.advertised.contains(*id));
        let wants: HashSet<_> = wants.copied().collect();
        if wants.is_empty() {
            return Ok(());
        }
        let mut tips: Vec<_> = refs::authors(repository)?.into_values().collect();
        tips.extend(refs::target(repository, refs::MAIN)?);
        tips.extend(&self.advertised);
        match history.unreachable(&tips, wants)?.iter().next() {
            None => Ok(()),
            Some(id) => Err(ExchangeError::protocol(format!(
                "{id} is not in this volume's history"
            ))),
        }
    }

    /// Tells which haves are common: one is enough to begin, since all chains of a volume are entwined.
    fn acknowledge(&mut self, common: &[ObjectId]) -> Result<(), ExchangeError> {
        pktline::data(self.out, b"acknowledgments\n")?;
        for id in common {
            pktline::data(self.out, format!("ACK {id}\n").as_bytes())?;
        }
        if common.is_empty() {
            pktline::data(self.out, b"NAK\n")?;
            return pktline::special(self.out, &Line::Flush);
        }
        pktline::data(self.out, b"ready\n")?;
        pktline::special(self.out, &Line::Delimiter)
    }

    fn tell_shallow(&mut self, selection: &Selection) -> Result<(), ExchangeError> {
        pktline::data(self.out, b"shallow-info\n")?;
        for (word, ids) in [
            ("shallow", &selection.shallow),
            ("unshallow", &selection.unshallow),
        ] {
            for id in ids {
                pktline::data(self.out, format!("{word} {id}\n").as_bytes())?;
            }
        }
        pktline::special(self.out, &Line::Delimiter)
    }

    fn send_pack(
        &mut self,
        repository: &mut gix::Repository,
        ids: &[ObjectId],
        request: &FetchRequest,
    ) -> Result<(), ExchangeError> {
        let table = match ids.len() {
            0..COPIED_MIN => None,
            _ => packed(repository),
        };
        let copies = table
            .as_ref()
            .map(|table| Copies::new(table, request.ofs_delta));
        let mut band = BandWriter::new(self.out);
        let written = pack_writer::write((repository, copies), ids, &mut band);
        band.flush().map_err(ExchangeError::Connection)?;
        written?;
        self.served.objects += ids.len();
        pktline::special(self.out, &Line::Flush)
    }
}

/// What lies in packs; nothing where it cannot be listed: then each object is read by itself. So it is when packs
/// are being replaced at the moment.
fn packed(repository: &gix::Repository) -> Option<Table> {
    let table = Table::of_all_packs(repository.objects.store_ref().path());
    table.unwrap_or_else(|error| {
        tracing::debug!("packs are not sent as they lie: {error}");
        None
    })
}

/// All objects of a selection that the other side may lack: commits, and trees and blobs that their parents do
/// not have.
fn list_objects(
    history: &mut History<'_>,
    selection: &Selection,
    objects_max: usize,
    progress: &mut Progress<'_>,
) -> Result<Vec<ObjectId>, ExchangeError> {
    let (mut ids, mut seen) = (Vec::new(), HashSet::new());
    for commit in &selection.commits {
        ids.push(*commit);
        progress.listed(ids.len())?;
        let bases = history.bases(selection, *commit)?;
        let tree = history.node(*commit)?.tree;
        walk_new(
            history.objects,
            (tree, bases),
            &mut seen,
            &mut |_, found| {
                if ids.len() >= objects_max {
                    return Err(ExchangeError::Limit {
                        what: "objects in one pack",
                        limit: objects_max as u64,
                    });
                }
                ids.push(found.id);
                progress.listed(ids.len())
            },
        )?;
    }
    Ok(ids)
}
