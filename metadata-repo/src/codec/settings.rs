//! The volume's settings as the bytes of `%volume`.

use super::fields::Fields;
use super::{CodecError, ENCODED_BYTES_MAX, FORMAT};
use crate::bencode::{self, Build, Value};
use delugefs_core::ids::CommitId;
use delugefs_core::limits::{INLINE_BYTES_MAX, VOLUME_NAME_BYTES_MAX};
use delugefs_core::merge::MERGE_VERSION;
use delugefs_core::past::Boundary;
use delugefs_core::settings::Settings;
use std::collections::BTreeMap;
use std::time::Duration;

/// Encodes settings, canonically.
pub fn encode(settings: &Settings) -> Vec<u8> {
    let mut ours = BTreeMap::from([
        (&b"copies"[..], Build::Integer(settings.copies.into())),
        (b"format", Build::Integer(FORMAT.into())),
        (b"grace", build_duration(settings.grace)),
        (b"history", build_duration(settings.history)),
        (b"inline_max", Build::Integer(settings.inline_max.into())),
        (b"keep", build_duration(settings.keep)),
        (b"merge", Build::Integer(MERGE_VERSION.into())),
        (b"name", Build::Bytes(settings.name.as_bytes())),
        (b"retire", build_duration(settings.retire)),
        (b"volume", Build::Bytes(settings.volume.as_bytes())),
        (b"wait", build_duration(settings.wait)),
    ]);
    if let Some(Boundary { time, commit }) = &settings.boundary {
        let record = vec![
            Build::Integer((*time).into()),
            Build::Bytes(commit.as_bytes()),
        ];
        ours.insert(b"boundary", Build::List(record));
    }
    let mut out = Vec::new();
    Build::Dictionary(BTreeMap::from([(
        &b"delugefs"[..],
        Build::Dictionary(ours),
    )]))
    .write(&mut out);
    out
}

fn build_duration<'a>(duration: Duration) -> Build<'a> {
    Build::List(vec![
        Build::Integer(duration.as_secs().into()),
        Build::Integer(duration.subsec_nanos().into()),
    ])
}

/// Decodes what [`encode`] wrote, and nothing else.
pub fn decode(bytes: &[u8]) -> Result<Settings, CodecError> {
    if bytes.len() > ENCODED_BYTES_MAX {
        return Err(CodecError::TooLarge);
    }
    let mut outer = Fields::new(bencode::parse(bytes)?, "the settings")?;
    let mut ours = outer.dictionary("delugefs")?;
    outer.finish()?;
    ours.check_format(FORMAT)?;
    check_merge(&mut ours)?;
    let settings = Settings {
        volume: ours.id("volume")?,
        name: ours.text("name", VOLUME_NAME_BYTES_MAX)?,
        copies: ours.integer("copies")?,
        grace: ours.duration("grace")?,
        keep: ours.duration("keep")?,
        wait: ours.duration("wait")?,
        inline_max: ours.integer("inline_max")?,
        history: ours.duration("history")?,
        retire: ours.duration("retire")?,
        boundary: read_boundary(&mut ours)?,
    };
    ours.finish()?;
    if settings.copies == 0 || settings.inline_max as usize > INLINE_BYTES_MAX {
        return Err(CodecError::Invalid("settings"));
    }
    Ok(settings)
}

fn read_boundary(ours: &mut Fields<'_>) -> Result<Option<Boundary>, CodecError> {
    let Some(record) = ours.optional_list("boundary")? else {
        return Ok(None);
    };
    let invalid = || CodecError::Invalid("boundary");
    let [Value::Integer(time), Value::Bytes(commit)] = record[..] else {
        return Err(invalid());
    };
    Ok(Some(Boundary {
        time: time.try_into().map_err(|_| invalid())?,
        commit: CommitId::from_slice(commit).ok_or_else(invalid)?,
    }))
}

/// Nodes that merge differently would never agree, so that a newer merge is refused.
fn check_merge(ours: &mut Fields<'_>) -> Result<(), CodecError> {
    match ours.integer("merge")? {
        MERGE_VERSION => Ok(()),
        0 => Err(CodecError::Invalid("merge")),
        found => Err(CodecError::Newer {
            found,
            known: MERGE_VERSION,
        }),
    }
}
