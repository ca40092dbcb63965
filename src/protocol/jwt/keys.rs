//! The keys a tenant accepts, prepared once so that a verification only has to pick one (protocol.md 2.2).
//!
//! Built when a tenant is loaded or changed, then shared read-only by every thread. Building never fails: an entry
//! of the key set that cannot be used stays in its place and answers *signer error with kid* when a token asks for
//! it, so one bad key does not take a tenant down.
//!
//! Not supported, because the cryptography library does not offer them: P-521 (`ES512`), Ed448, and RSA keys under
//! 2048 bits (whose signatures never verify). An empty secret counts as no secret: everyone could sign with it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::{digest, hmac, signature};
use serde_json::Value;

use super::JwtError;
use super::token::Header;

/// Verification keys of one tenant: its secret and the entries of its key set, in order.
pub struct Keys {
    secret: Option<HmacKeys>,
    /// `None` when the tenant has no key set with a `keys` member.
    set: Option<Vec<Entry>>,
    fingerprint: [u8; 32],
}

struct Entry {
    kid: String,
    kind: Kind,
    /// `None`: the entry is selected but cannot be used.
    material: Option<Material>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Oct,
    Rsa,
    Ec,
    Okp,
}

enum Material {
    Oct(Box<HmacKeys>),
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

struct HmacKeys {
    sha256: hmac::Key,
    sha384: hmac::Key,
    sha512: hmac::Key,
}

/// What the selected key does with a signature.
pub(super) enum Verifier<'a> {
    Hmac(&'a hmac::Key),
    Rsa(&'static signature::RsaParameters, &'a [u8], &'a [u8]),
    Point(&'static dyn signature::VerificationAlgorithm, &'a [u8]),
    /// A key of the right family for another algorithm of it, such as P-384 for `ES256`: no signature fits.
    Mismatch,
}

impl Keys {
    /// Prepares `jwt_secret` (used as raw bytes) and `jwt_jwks` (an object with a `keys` array).
    pub fn new(secret: Option<&str>, jwks: Option<&Value>) -> Self {
        let set = jwks
            .and_then(|jwks| jwks.get("keys"))
            .map(|keys| keys.as_array().into_iter().flatten().filter_map(Entry::new).collect());
        Self {
            secret: secret.filter(|s| !s.is_empty()).map(|s| HmacKeys::new(s.as_bytes())),
            set,
            fingerprint: fingerprint(jwks),
        }
    }

    /// Identifies the key set, so that a cached verification dies with the keys it was made with.
    pub(super) fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }

    /// Picks the key for a header, by the table of 2.2.
    pub(super) fn select(&self, header: Header<'_>) -> Result<Verifier<'_>, JwtError> {
        let no_signer = || JwtError::Signer { kid: None };
        let alg = header.alg.ok_or_else(no_signer)?;
        let kind = kind_of(alg).ok_or_else(no_signer)?;
        let Some((kid, set)) = header.kid.zip(self.set.as_deref()) else {
            return match kind {
                Kind::Oct => self.by_secret(alg).ok_or_else(no_signer),
                _ => Err(no_signer()),
            };
        };
        let found = set.iter().find(|entry| entry.kind == kind && entry.kid == kid);
        match found {
            Some(entry) => entry.verifier(alg),
            None if kind == Kind::Oct => self.by_secret(alg).ok_or_else(no_signer),
            None => Err(JwtError::Signer { kid: Some(kid.to_owned()) }),
        }
    }

    fn by_secret(&self, alg: &str) -> Option<Verifier<'_>> {
        self.secret.as_ref().map(|keys| keys.verifier(alg))
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys")
            .field("secret", &self.secret.is_some())
            .field("set", &self.set.as_ref().map(Vec::len))
            .finish_non_exhaustive()
    }
}

/// Whether the algorithm's verification is expensive enough to be remembered.
pub(super) fn is_asymmetric(alg: Option<&str>) -> bool {
    !matches!(alg.and_then(kind_of), None | Some(Kind::Oct))
}

fn kind_of(alg: &str) -> Option<Kind> {
    match alg {
        "HS256" | "HS384" | "HS512" => Some(Kind::Oct),
        "RS256" | "RS384" | "RS512" => Some(Kind::Rsa),
        "ES256" | "ES384" | "ES512" => Some(Kind::Ec),
        "EdDSA" | "Ed25519" | "Ed448" => Some(Kind::Okp),
        _ => None,
    }
}

impl Entry {
    /// Reads one member of `keys`; `None` when no token can ever select it.
    fn new(jwk: &Value) -> Option<Self> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        let bytes = |name: &str| text(name).and_then(|v| URL_SAFE_NO_PAD.decode(v).ok());
        let (kind, material) = match text("kty")? {
            "oct" => {
                text("k")?;
                let k = bytes("k").filter(|k| !k.is_empty());
                (Kind::Oct, k.map(|k| Material::Oct(Box::new(HmacKeys::new(&k)))))
            }
            "RSA" => {
                let (n, e) = (bytes("n").map(without_zeros), bytes("e").map(without_zeros));
                (Kind::Rsa, n.zip(e).map(|(n, e)| Material::Rsa { n, e }))
            }
            "EC" => {
                let point = |len| point(bytes("x")?, bytes("y")?, len);
                let material = match text("crv") {
                    Some("P-256") => point(32).map(Material::P256),
                    Some("P-384") => point(48).map(Material::P384),
                    _ => None,
                };
                (Kind::Ec, material)
            }
            "OKP" => match text("crv")? {
                "Ed25519" => {
                    let x = bytes("x").filter(|x| x.len() == 32);
                    (Kind::Okp, x.map(Material::Ed25519))
                }
                "Ed448" => (Kind::Okp, None),
                _ => return None,
            },
            _ => return None,
        };
        Some(Self { kid: text("kid")?.to_owned(), kind, material })
    }

    fn verifier(&self, alg: &str) -> Result<Verifier<'_>, JwtError> {
        let unusable = || JwtError::Signer { kid: Some(self.kid.clone()) };
        let verifier = match self.material.as_ref().ok_or_else(unusable)? {
            Material::Oct(keys) => keys.verifier(alg),
            Material::Rsa { n, e } => Verifier::Rsa(rsa_parameters(alg), n, e),
            Material::P256(point) if alg == "ES256" => Verifier::Point(&signature::ECDSA_P256_SHA256_FIXED, point),
            Material::P384(point) if alg == "ES384" => Verifier::Point(&signature::ECDSA_P384_SHA384_FIXED, point),
            Material::Ed25519(x) if alg != "Ed448" => Verifier::Point(&signature::ED25519, x),
            Material::P256(_) | Material::P384(_) | Material::Ed25519(_) => Verifier::Mismatch,
        };
        Ok(verifier)
    }
}

impl HmacKeys {
    fn new(secret: &[u8]) -> Self {
        Self {
            sha256: hmac::Key::new(hmac::HMAC_SHA256, secret),
            sha384: hmac::Key::new(hmac::HMAC_SHA384, secret),
            sha512: hmac::Key::new(hmac::HMAC_SHA512, secret),
        }
    }

    fn verifier(&self, alg: &str) -> Verifier<'_> {
        Verifier::Hmac(match alg {
            "HS384" => &self.sha384,
            "HS512" => &self.sha512,
            _ => &self.sha256,
        })
    }
}

impl Verifier<'_> {
    /// Whether `signature` is this key's signature of `message`.
    pub fn accepts(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Hmac(key) => hmac::verify(key, message, signature).is_ok(),
            Self::Rsa(parameters, n, e) => {
                signature::RsaPublicKeyComponents { n, e }.verify(parameters, message, signature).is_ok()
            }
            Self::Point(algorithm, point) => {
                signature::UnparsedPublicKey::new(*algorithm, point).verify(message, signature).is_ok()
            }
            Self::Mismatch => false,
        }
    }
}

fn rsa_parameters(alg: &str) -> &'static signature::RsaParameters {
    match alg {
        "RS384" => &signature::RSA_PKCS1_2048_8192_SHA384,
        "RS512" => &signature::RSA_PKCS1_2048_8192_SHA512,
        _ => &signature::RSA_PKCS1_2048_8192_SHA256,
    }
}

/// Big-endian numbers may arrive padded; the library refuses leading zeros.
fn without_zeros(number: Vec<u8>) -> Vec<u8> {
    let zeros = number.iter().take_while(|&&byte| byte == 0).count();
    number[zeros..].to_vec()
}

/// Uncompressed curve point `04 ‖ x ‖ y`; short coordinates are padded, long ones refused.
fn point(x: Vec<u8>, y: Vec<u8>, coordinate_len: usize) -> Option<Vec<u8>> {
    let mut point = vec![4];
    for coordinate in [without_zeros(x), without_zeros(y)] {
        let padding = coordinate_len.checked_sub(coordinate.len())?;
        point.extend(std::iter::repeat_n(0, padding));
        point.extend_from_slice(&coordinate);
    }
    Some(point)
}

fn fingerprint(jwks: Option<&Value>) -> [u8; 32] {
    let text = jwks.map(Value::to_string).unwrap_or_default();
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    let mut fingerprint = [0; 32];
    fingerprint.copy_from_slice(digest.as_ref());
    fingerprint
}
