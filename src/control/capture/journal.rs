//! Which tenants may have left a replication slot behind: one empty file each in the state folder.
//!
//! A slot holds back its database's log until it is dropped. It is noted before it is made and struck off when it is gone, so
//! that a process that crashed, or could not reach the database at its end, finds it later. Without the file system's help a
//! slot is at worst not found again, which is logged; streaming goes on.

use std::path::{Path, PathBuf};

/// Folder of the notes within the state folder.
const FOLDER: &str = "slots";

/// Notes of one state folder.
pub struct SlotJournal {
    folder: PathBuf,
}

impl SlotJournal {
    /// In this state folder, which exists.
    pub fn new(state_dir: &Path) -> Self {
        Self { folder: state_dir.join(FOLDER) }
    }

    fn note_of(&self, external_id: &str) -> PathBuf {
        // External ids may hold anything; a file name may not.
        let name: String = external_id.bytes().map(|byte| format!("{byte:02x}")).collect();
        // Names of 255 bytes are the most that file systems take.
        self.folder.join(&name[..name.len().min(240)])
    }

    /// The tenant is about to have a slot.
    pub fn note(&self, external_id: &str) {
        let path = self.note_of(external_id);
        let written = std::fs::create_dir_all(&self.folder).and_then(|()| std::fs::write(&path, external_id));
        if let Err(error) = written {
            tracing::warn!("{} cannot be written: a crash would leave the slot of {external_id} behind: {error}", path.display());
        }
    }

    /// The tenant has no slot any more.
    pub fn strike_off(&self, external_id: &str) {
        // What was never written needs no striking off.
        let _ = std::fs::remove_file(self.note_of(external_id));
    }

    /// Tenants with a note.
    pub fn noted(&self) -> Vec<String> {
        let Ok(files) = std::fs::read_dir(&self.folder) else { return Vec::new() };
        files.flatten().filter_map(|file| std::fs::read_to_string(file.path()).ok()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_survive_until_they_are_struck_off() {
        let folder = tempfile::tempdir().unwrap();
        let journal = SlotJournal::new(folder.path());
        assert!(journal.noted().is_empty());
        let long = "x/é".repeat(100);
        journal.note("t1");
        journal.note(&long);
        journal.note("t1");
        let mut noted = SlotJournal::new(folder.path()).noted();
        noted.sort();
        assert_eq!(noted, ["t1", &long]);
        journal.strike_off("t1");
        journal.strike_off("never");
        assert_eq!(journal.noted(), [long]);
    }
}
