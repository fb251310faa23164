//! A repository with a model beside it.

use crate::codec::content_of_info;
use crate::signature::Signer as _;
use crate::{Authored, Authoring, Repository, View};
use delugefs_core::change::{Change, Changes};
use delugefs_core::entry::{Attributes, Content, Entry, File, Kind, Placed, Written};
use delugefs_core::ids::{CommitId, EntryId, IncarnationId, InfoHash, TreeId, VolumeId};
use delugefs_core::memory_tree::MemoryTree;
use delugefs_core::name::Name;
use delugefs_core::settings::Settings;
use delugefs_core::time::Timestamp;
use ed25519_dalek::SigningKey;
use std::collections::BTreeMap;
use std::path::Path;

pub(crate) fn name(bytes: impl AsRef<[u8]>) -> Name {
    Name::parse(bytes.as_ref()).unwrap()
}

pub(crate) fn id(number: u32) -> EntryId {
    let mut bytes = [7; 16];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    EntryId::new(bytes)
}

pub(crate) fn key(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[number; 32])
}

pub(crate) fn incarnation(number: u8) -> IncarnationId {
    key(number).incarnation()
}

pub(crate) fn settings() -> Settings {
    Settings::new(VolumeId::new([5; 16]), "testing".to_owned())
}

pub(crate) fn entry(id: EntryId, kind: Kind) -> Entry {
    Entry {
        id,
        kind,
        attributes: Attributes::default(),
        written: Written::default(),
    }
}

pub(crate) fn inline(bytes: &[u8]) -> Kind {
    Kind::File(File {
        content: Content::Inline(bytes.to_vec()),
        previous: Vec::new(),
    })
}

/// A raw info dictionary, told apart by a number.
pub(crate) fn info(number: u64) -> Vec<u8> {
    format!(
        "d6:lengthi{}e4:name1:x12:piece lengthi65536e6:pieces20:{:020}e",
        number + 1,
        number
    )
    .into_bytes()
}

pub(crate) fn swarm(number: u64) -> Kind {
    let content = Content::Swarm(content_of_info(&info(number)).unwrap());
    Kind::File(File {
        content,
        previous: Vec::new(),
    })
}

pub(crate) fn placed(parent: EntryId, name_bytes: impl AsRef<[u8]>, entry: Entry) -> Placed {
    Placed {
        parent,
        name: name(name_bytes),
        entry,
    }
}

/// A change of an entry from what the model has.
pub(crate) fn change(model: &MemoryTree, id: EntryId, after: Option<Placed>) -> (EntryId, Change) {
    (
        id,
        Change {
            before: model.get(id).cloned(),
            after,
        },
    )
}

/// One node: its repository and what it believes the tree to be.
pub(crate) struct Node {
    pub(crate) repository: Repository,
    pub(crate) incarnation: IncarnationId,
    pub(crate) key: SigningKey,
    pub(crate) view: View,
    pub(crate) model: MemoryTree,
    pub(crate) infos: BTreeMap<InfoHash, Vec<u8>>,
    pub(crate) sequence: u64,
    pub(crate) now: i64,
    pub(crate) durable: bool,
}

impl Node {
    pub(crate) fn create(path: &Path, number: u8) -> Self {
        Self::new(Repository::create(path, &settings()).unwrap(), number)
    }

    pub(crate) fn new(repository: Repository, number: u8) -> Self {
        let view = repository.view();
        let model = read(&repository, view.tree);
        Self {
            repository,
            incarnation: incarnation(number),
            key: key(number),
            view,
            model,
            infos: (0..64)
                .map(|number| {
                    (
                        content_of_info(&info(number)).unwrap().info_hash,
                        info(number),
                    )
                })
                .collect(),
            sequence: 0,
            now: 1_700_000_000,
            durable: false,
        }
    }

    pub(crate) fn try_author(&mut self, changes: &Changes) -> crate::Result<Authored> {
        let mut after = self.model.clone();
        after.apply(changes).unwrap();
        let authored = self.author_unmodelled(changes, &after)?;
        self.model = after;
        Ok(authored)
    }

    /// Without keeping the model.
    pub(crate) fn author_unmodelled(
        &mut self,
        changes: &Changes,
        after: &MemoryTree,
    ) -> crate::Result<Authored> {
        self.sequence += 1;
        let authored = self.repository.author(&Authoring {
            signer: &self.key,
            label: "node",
            base: &self.view,
            changes,
            settings: None,
            infos: &self.infos,
            journal_sequence: self.sequence,
            now: Timestamp::from_seconds(self.now),
            durable: self.durable,
            even_if_nothing: false,
            resolve: &|id| {
                after
                    .get(id)
                    .map(|placed| (placed.parent, placed.name.clone()))
            },
        })?;
        self.view = authored.view.clone();
        Ok(authored)
    }

    /// Commits that it has what it shows.
    pub(crate) fn witness(&mut self) {
        let authored = self.repository.author(&Authoring {
            signer: &self.key,
            label: "node",
            base: &self.view,
            changes: &Changes::new(),
            settings: None,
            infos: &self.infos,
            journal_sequence: self.sequence,
            now: Timestamp::from_seconds(self.now),
            durable: self.durable,
            even_if_nothing: true,
            resolve: &|_| None,
        });
        self.view = authored.unwrap().view;
    }

    pub(crate) fn author(&mut self, changes: &Changes) -> Authored {
        self.try_author(changes).unwrap()
    }

    pub(crate) fn author_all(
        &mut self,
        changes: impl IntoIterator<Item = (EntryId, Change)>,
    ) -> Authored {
        let changes = changes.into_iter().collect();
        self.author(&changes)
    }

    /// Puts entries where they shall be.
    pub(crate) fn put(&mut self, entries: impl IntoIterator<Item = Placed>) -> Authored {
        let changes: Changes = entries
            .into_iter()
            .map(|placed| change(&self.model, placed.entry.id, Some(placed)))
            .collect();
        self.author(&changes)
    }

    pub(crate) fn set(&mut self, settings: &Settings) {
        let authored = self.repository.author(&Authoring {
            signer: &self.key,
            label: "node",
            base: &self.view,
            changes: &Changes::new(),
            settings: Some(settings),
            infos: &self.infos,
            journal_sequence: self.sequence,
            now: Timestamp::from_seconds(self.now),
            durable: self.durable,
            even_if_nothing: false,
            resolve: &|_| None,
        });
        self.view = authored.unwrap().view;
    }

    /// Begins another chain where the present one ended, from the same base; the view stays as it was.
    pub(crate) fn continue_as(&mut self, number: u8) -> CommitId {
        self.incarnation = incarnation(number);
        self.key = key(number);
        let authored = self.repository.author(&Authoring {
            signer: &self.key,
            label: "node",
            base: &self.view,
            changes: &Changes::new(),
            settings: None,
            infos: &self.infos,
            journal_sequence: self.sequence,
            now: Timestamp::from_seconds(self.now),
            durable: true,
            even_if_nothing: true,
            resolve: &|_| None,
        });
        authored.unwrap().commit.unwrap()
    }

    pub(crate) fn refresh(&mut self) {
        self.view = self.repository.refresh_view().unwrap();
        self.model = read(&self.repository, self.view.tree);
    }
}

/// A whole tree, read directory by directory.
pub(crate) fn read(repository: &Repository, tree: TreeId) -> MemoryTree {
    let mut model = MemoryTree::new();
    let root = model.get(EntryId::ROOT).cloned().unwrap();
    let after = Placed {
        entry: repository.own_entry(tree).unwrap(),
        ..root.clone()
    };
    let mut changes = Changes::new();
    changes.push(
        EntryId::ROOT,
        Change {
            before: Some(root),
            after: Some(after),
        },
    );
    let mut trees = vec![(EntryId::ROOT, tree)];
    while let Some((parent, tree)) = trees.pop() {
        for listed in repository.directory(tree).unwrap() {
            let id = listed.entry.id;
            trees.extend(listed.tree.map(|tree| (id, tree)));
            let after = Some(Placed {
                parent,
                name: listed.name,
                entry: listed.entry,
            });
            changes.push(
                id,
                Change {
                    before: None,
                    after,
                },
            );
        }
    }
    model.apply(&changes).unwrap();
    model.check().unwrap();
    model
}
