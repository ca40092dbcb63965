//! Secrets at rest (http-api.md 12): the tenant's JWT secret and the credentials of its database.
//!
//! Two stored forms exist. `g1:` is AES-256-GCM; text without that prefix is the reference's legacy AES-128-ECB. Both are
//! read when their key is known, so a registry written by the reference keeps working. What is written follows
//! `DB_ENC_WRITE_GCM`. A server without either key keeps a generated one in its state directory, see
//! [`load_or_create_key`]. Errors never carry plaintext, ciphertext or key bytes.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use aes::Aes128;
use aes::cipher::{BlockDecrypt as _, BlockEncrypt as _, KeyInit as _};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

const GCM_PREFIX: &str = "g1:";
const GCM_KEY_BYTES: usize = 32;
const GCM_TAG_BYTES: usize = 16;
const ECB_KEY_BYTES: usize = 16;
const BLOCK_BYTES: usize = 16;

/// Encrypts and decrypts stored values. Cheap to share behind an `Arc`; holds no plaintext.
pub struct Cipher {
    ecb: Option<Aes128>,
    gcm: Option<LessSafeKey>,
    write_gcm: bool,
}

/// Why a cipher could not be made or a value not be converted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CipherError {
    /// `DB_ENC_KEY` is not 16 bytes long.
    EcbKeyLength,
    /// `DB_ENC_KEY_GCM` is not 32 bytes long.
    GcmKeyLength,
    /// The key for this form of value is not configured.
    NoKey,
    /// The stored text is damaged or was written with another key.
    Unreadable,
    /// The system gave no random bytes.
    Random,
}

impl fmt::Display for CipherError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EcbKeyLength => "DB_ENC_KEY must be 16 bytes long",
            Self::GcmKeyLength => "DB_ENC_KEY_GCM must be 32 bytes long",
            Self::NoKey => "the key for this stored secret is not configured",
            Self::Unreadable => "a stored secret is damaged or was written with another key",
            Self::Random => "the system gave no random bytes",
        })
    }
}

impl std::error::Error for CipherError {}

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cipher").field("write_gcm", &self.write_gcm).finish_non_exhaustive()
    }
}

impl Cipher {
    /// Takes the raw bytes of `DB_ENC_KEY` and `DB_ENC_KEY_GCM`; at least one is needed. Without an ECB key GCM is
    /// written whatever `write_gcm` says; `write_gcm` without a GCM key writes ECB, see [`Cipher::writes_gcm`].
    pub fn from_keys(ecb: Option<&str>, gcm: Option<&str>, write_gcm: bool) -> Result<Self, CipherError> {
        let ecb = match ecb {
            Some(key) if key.len() != ECB_KEY_BYTES => return Err(CipherError::EcbKeyLength),
            Some(key) => Some(Aes128::new_from_slice(key.as_bytes()).map_err(|_| CipherError::EcbKeyLength)?),
            None => None,
        };
        let gcm = match gcm {
            Some(key) => {
                let key = UnboundKey::new(&AES_256_GCM, key.as_bytes());
                Some(LessSafeKey::new(key.map_err(|_| CipherError::GcmKeyLength)?))
            }
            None => None,
        };
        if ecb.is_none() && gcm.is_none() {
            return Err(CipherError::NoKey);
        }
        let write_gcm = gcm.is_some() && (write_gcm || ecb.is_none());
        Ok(Self { ecb, gcm, write_gcm })
    }

    /// Which form [`Cipher::encrypt`] writes; false although GCM was asked for deserves a warning at boot.
    pub fn writes_gcm(&self) -> bool {
        self.write_gcm
    }

    /// The stored form of a value. GCM is randomised, ECB is not.
    pub fn encrypt(&self, plain: &str) -> Result<String, CipherError> {
        if self.write_gcm {
            let mut iv = [0; NONCE_LEN];
            getrandom::fill(&mut iv).map_err(|_| CipherError::Random)?;
            self.encrypt_gcm(plain, iv)
        } else {
            self.encrypt_ecb(plain)
        }
    }

    /// The value behind stored text of either form.
    pub fn decrypt(&self, stored: &str) -> Result<String, CipherError> {
        let plain = match stored.strip_prefix(GCM_PREFIX) {
            Some(text) => self.decrypt_gcm(text)?,
            None => self.decrypt_ecb(stored)?,
        };
        String::from_utf8(plain).map_err(|_| CipherError::Unreadable)
    }

    fn encrypt_gcm(&self, plain: &str, iv: [u8; NONCE_LEN]) -> Result<String, CipherError> {
        let key = self.gcm.as_ref().ok_or(CipherError::NoKey)?;
        let mut text = plain.as_bytes().to_vec();
        let tag = key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(iv), Aad::empty(), &mut text)
            .map_err(|_| CipherError::Unreadable)?;
        let stored = [&iv[..], tag.as_ref(), &text].concat();
        Ok(format!("{GCM_PREFIX}{}", STANDARD.encode(stored)))
    }

    fn decrypt_gcm(&self, text: &str) -> Result<Vec<u8>, CipherError> {
        let key = self.gcm.as_ref().ok_or(CipherError::NoKey)?;
        let stored = STANDARD.decode(text).map_err(|_| CipherError::Unreadable)?;
        let (iv, rest) = stored.split_first_chunk::<NONCE_LEN>().ok_or(CipherError::Unreadable)?;
        let (tag, body) = rest.split_at_checked(GCM_TAG_BYTES).ok_or(CipherError::Unreadable)?;
        // The library wants the tag last.
        let mut sealed = [body, tag].concat();
        let nonce = Nonce::assume_unique_for_key(*iv);
        let plain = key.open_in_place(nonce, Aad::empty(), &mut sealed).map_err(|_| CipherError::Unreadable)?;
        Ok(plain.to_vec())
    }

    fn encrypt_ecb(&self, plain: &str) -> Result<String, CipherError> {
        let key = self.ecb.as_ref().ok_or(CipherError::NoKey)?;
        let mut bytes = plain.as_bytes().to_vec();
        let padding = BLOCK_BYTES - bytes.len() % BLOCK_BYTES;
        bytes.resize(bytes.len() + padding, padding as u8);
        for block in bytes.chunks_exact_mut(BLOCK_BYTES) {
            key.encrypt_block(block.into());
        }
        Ok(STANDARD.encode(bytes))
    }

    fn decrypt_ecb(&self, stored: &str) -> Result<Vec<u8>, CipherError> {
        let key = self.ecb.as_ref().ok_or(CipherError::NoKey)?;
        let mut bytes = STANDARD.decode(stored).map_err(|_| CipherError::Unreadable)?;
        if bytes.is_empty() || !bytes.len().is_multiple_of(BLOCK_BYTES) {
            return Err(CipherError::Unreadable);
        }
        for block in bytes.chunks_exact_mut(BLOCK_BYTES) {
            key.decrypt_block(block.into());
        }
        let padding = usize::from(bytes[bytes.len() - 1]);
        let is_padding = |bytes: &[u8]| bytes.iter().all(|&byte| usize::from(byte) == padding);
        if !(1..=BLOCK_BYTES).contains(&padding) || !is_padding(&bytes[bytes.len() - padding..]) {
            return Err(CipherError::Unreadable);
        }
        bytes.truncate(bytes.len() - padding);
        Ok(bytes)
    }
}

/// Reads the generated GCM key of this installation, making it on first use. The file is readable by its owner only and
/// appears complete or not at all; of two processes that race, both end with the same key. The key is 32 characters
/// made of 192 random bits, so that it can later be moved into `DB_ENC_KEY_GCM` as it is. The folder must exist.
pub fn load_or_create_key(path: &Path) -> io::Result<String> {
    match read_key(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => create_key(path),
        other => other,
    }
}

fn read_key(path: &Path) -> io::Result<String> {
    let key = fs::read_to_string(path)?.trim_end().to_owned();
    if key.len() == GCM_KEY_BYTES {
        return Ok(key);
    }
    let text = format!("{} must hold a key of {GCM_KEY_BYTES} bytes", path.display());
    Err(io::Error::new(io::ErrorKind::InvalidData, text))
}

fn create_key(path: &Path) -> io::Result<String> {
    let mut random = [0; GCM_KEY_BYTES / 4 * 3];
    getrandom::fill(&mut random).map_err(|_| io::Error::other(CipherError::Random))?;
    let key = URL_SAFE_NO_PAD.encode(random);
    let draft = path.with_extension(format!("{}.draft", std::process::id()));
    let written = write_private(&draft, key.as_bytes());
    // A link fails when the name is taken, so a key that is already in use is never replaced.
    let published = written.and_then(|()| fs::hard_link(&draft, path));
    // The draft has served its purpose either way; a leftover would be harmless.
    let _ = fs::remove_file(&draft);
    match published {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return read_key(path),
        Err(error) => return Err(error),
    }
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        File::open(folder)?.sync_all()?;
    }
    Ok(key)
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const ECB: &str = "1234567890123456";
    const GCM: &str = "12345678901234567890123456789012";
    const JWT_SECRET: &str = "super-secret-jwt-token-with-at-least-32-characters-long";
    const ECB_POSTGRES: &str = "v1QVng3N+pZd/0AEObABwg==";
    const GCM_POSTGRES: &str = "g1:AAECAwQFBgcICQoLhUBooliRKsv1PcCCWuNtRig7FG4Sef8Z";

    #[test]
    fn published_vectors_are_written_and_read() {
        let ecb = Cipher::from_keys(Some(ECB), None, false).unwrap();
        let long = "6MP8XGjE/1JGHSbp6UzVI0UTNR3Oboy+j4mfrGaWwvTXrqM3pBTWvqtexlZVWb2rC5VCjckdAj8cpsZFduIleA==";
        for (plain, stored) in [("postgres", ECB_POSTGRES), (JWT_SECRET, long)] {
            assert_eq!(ecb.encrypt(plain).unwrap(), stored);
            assert_eq!(ecb.decrypt(stored).unwrap(), plain);
        }
        let gcm = Cipher::from_keys(None, Some(GCM), true).unwrap();
        let iv = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];
        assert_eq!(gcm.encrypt_gcm("postgres", iv).unwrap(), GCM_POSTGRES);
        assert_eq!(gcm.decrypt(GCM_POSTGRES).unwrap(), "postgres");
    }

    #[test]
    fn the_written_form_follows_keys_and_flag() {
        let both = |flag| Cipher::from_keys(Some(ECB), Some(GCM), flag).unwrap();
        assert!(both(true).encrypt("x").unwrap().starts_with("g1:"));
        assert!(!both(false).encrypt("x").unwrap().starts_with("g1:"));
        assert!(Cipher::from_keys(None, Some(GCM), false).unwrap().writes_gcm());
        assert!(!Cipher::from_keys(Some(ECB), None, true).unwrap().writes_gcm());
        for stored in [ECB_POSTGRES, GCM_POSTGRES] {
            assert_eq!(both(true).decrypt(stored).unwrap(), "postgres");
        }
    }

    #[test]
    fn every_length_survives() {
        for cipher in [Cipher::from_keys(Some(ECB), None, false).unwrap(), Cipher::from_keys(None, Some(GCM), true).unwrap()] {
            for len in 0..50 {
                let plain = "ä".repeat(len);
                assert_eq!(cipher.decrypt(&cipher.encrypt(&plain).unwrap()).unwrap(), plain);
            }
        }
    }

    #[test]
    fn damaged_text_is_refused() {
        let cipher = Cipher::from_keys(Some(ECB), Some(GCM), true).unwrap();
        let flipped = GCM_POSTGRES.replace("hUBo", "hUBp");
        for stored in ["", "plain", "AAAA", "AAAAAAAAAAAAAAAAAAAAAA==", "g1:", "g1:AAAA", &flipped] {
            assert_eq!(cipher.decrypt(stored), Err(CipherError::Unreadable), "{stored}");
        }
        let ecb = Cipher::from_keys(Some(ECB), None, false).unwrap();
        assert_eq!(ecb.decrypt(GCM_POSTGRES), Err(CipherError::NoKey));
        let other = Cipher::from_keys(None, Some(&GCM.replace('1', "9")), true).unwrap();
        assert_eq!(other.decrypt(GCM_POSTGRES), Err(CipherError::Unreadable));
        assert_eq!(other.decrypt(ECB_POSTGRES), Err(CipherError::NoKey));
    }

    #[test]
    fn keys_must_have_their_length() {
        let error = |ecb, gcm| Cipher::from_keys(ecb, gcm, true).map(|_| ()).unwrap_err();
        assert_eq!(error(Some("short"), None), CipherError::EcbKeyLength);
        assert_eq!(error(None, Some(ECB)), CipherError::GcmKeyLength);
        assert_eq!(error(None, None), CipherError::NoKey);
    }

    #[test]
    fn the_generated_key_stays_and_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secrets.key");
        let key = load_or_create_key(&path).unwrap();
        assert!(Cipher::from_keys(None, Some(&key), true).is_ok());
        assert_eq!(load_or_create_key(&path).unwrap(), key);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        fs::write(&path, "too short").unwrap();
        assert_eq!(load_or_create_key(&path).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
