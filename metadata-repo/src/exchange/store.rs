//! Where objects are read from: the repository, or a pack under examination with the repository behind it.

use super::ExchangeError;
use gix::objs::{Find as _, FindHeader as _, Kind};
use gix::oid;

/// A readable set of objects.
pub(super) trait Objects {
    /// An object's kind and bytes, which may lie in `buffer`; `None` if it is not there.
    fn read<'a>(
        &mut self,
        id: &oid,
        buffer: &'a mut Vec<u8>,
    ) -> Result<Option<(Kind, &'a [u8])>, ExchangeError>;

    /// An object's kind; `None` if it is not there.
    fn kind_of(&mut self, id: &oid) -> Result<Option<Kind>, ExchangeError>;

    /// Whether all that a tree leads to is known to be there.
    fn has_all_of(&self, _tree: &oid) -> bool {
        false
    }
}

impl Objects for gix::Repository {
    fn read<'a>(
        &mut self,
        id: &oid,
        buffer: &'a mut Vec<u8>,
    ) -> Result<Option<(Kind, &'a [u8])>, ExchangeError> {
        let found = self.objects.try_find(id, buffer);
        let found = found.map_err(ExchangeError::repository)?;
        Ok(found.map(|object| (object.kind, object.data)))
    }

    fn kind_of(&mut self, id: &oid) -> Result<Option<Kind>, ExchangeError> {
        let found = self.objects.try_header(id);
        let found = found.map_err(ExchangeError::repository)?;
        Ok(found.map(|header| header.kind))
    }
}
