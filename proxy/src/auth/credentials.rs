//! Credential mapping: the tenant's login and password at the gate, another login at the server.

use std::{collections::HashMap, fmt, num::NonZeroU32, sync::Arc};

use ring::{
    pbkdf2,
    rand::{SecureRandom, SystemRandom},
};
use weir_tds::password::Password;
use zeroize::Zeroizing;

/// Most mapped logins.
pub const CREDENTIALS_MAX: usize = 10_000;
/// Rounds of a fresh hash: OWASP's 2023 figure for PBKDF2-HMAC-SHA256, some 0.2 s of one core.
const ROUNDS: u32 = 600_000;
/// Fewest rounds of a hash that is taken: below, a stolen configuration is soon a password.
const ROUNDS_MIN: u32 = 100_000;
/// Most: a login must not hold a core for longer than seconds.
const ROUNDS_MAX: u32 = 10_000_000;
/// Bytes of a fresh salt.
const SALT_LEN: usize = 16;
/// Bytes of a hash: SHA-256's.
const HASH_LEN: usize = 32;
/// What a hash begins with, and the only kind there is.
const KIND: &str = "pbkdf2-sha256";

/// Why a text is no password hash. Never holds the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a password hash is pbkdf2-sha256:ROUNDS:SALT:HASH with {ROUNDS_MIN} rounds or more, salt and hash in hex; \
     `weir-proxy hash-password` makes one"
)]
pub struct HashError;

/// A password's hash: PBKDF2-HMAC-SHA256 over its UTF-8 bytes. `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash {
    rounds: NonZeroU32,
    salt: Vec<u8>,
    hash: [u8; HASH_LEN],
}

impl PasswordHash {
    /// Reads `pbkdf2-sha256:ROUNDS:SALT:HASH`.
    ///
    /// # Errors
    /// It is none, or has too few or too many rounds.
    pub fn parse(text: &str) -> Result<Self, HashError> {
        let mut parts = text.trim().split(':');
        let (Some(KIND), Some(rounds), Some(salt), Some(hash), None) = (
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
        ) else {
            return Err(HashError);
        };
        let rounds: u32 = rounds.parse().map_err(|_| HashError)?;
        let salt = from_hex(salt).ok_or(HashError)?;
        let hash = from_hex(hash).and_then(|h| h.try_into().ok()).ok_or(HashError)?;
        if !(ROUNDS_MIN..=ROUNDS_MAX).contains(&rounds) || salt.len() < 8 || salt.len() > 64 {
            return Err(HashError);
        }
        let rounds = NonZeroU32::new(rounds).ok_or(HashError)?;
        Ok(Self { rounds, salt, hash })
    }

    /// Hashes a password under a fresh salt. Takes some 0.2 s of a core.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn of(password: &str) -> Result<Self, HashError> {
        let mut salt = vec![0; SALT_LEN];
        SystemRandom::new().fill(&mut salt).map_err(|_| HashError)?;
        Self::with(password, salt, ROUNDS).ok_or(HashError)
    }

    fn with(password: &str, salt: Vec<u8>, rounds: u32) -> Option<Self> {
        let rounds = NonZeroU32::new(rounds)?;
        let mut hash = [0; HASH_LEN];
        pbkdf2::derive(
            pbkdf2::PBKDF2_HMAC_SHA256,
            rounds,
            &salt,
            password.as_bytes(),
            &mut hash,
        );
        Some(Self { rounds, salt, hash })
    }

    /// True if this is the password's hash: compared in constant time. Takes some 0.2 s of a core: never on the runtime.
    #[must_use]
    pub fn verify(&self, password: &Password) -> bool {
        let text: Zeroizing<String> = password.to_text();
        let verified = pbkdf2::verify(
            pbkdf2::PBKDF2_HMAC_SHA256,
            self.rounds,
            &self.salt,
            text.as_bytes(),
            &self.hash,
        );
        // HMAC fills a short key up with zeros: to it, a password with a NUL behind it is the same password.
        verified.is_ok() && !text.contains('\0')
    }

    /// As a configuration holds it.
    #[must_use]
    pub fn to_text(&self) -> String {
        format!("{KIND}:{}:{}:{}", self.rounds, hex(&self.salt), hex(&self.hash))
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PasswordHash({} rounds)", self.rounds)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, b| {
        use fmt::Write as _;
        let _ = write!(text, "{b:02x}");
        text
    })
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok())
        .collect()
}

/// One mapped login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapped {
    /// Of the password that the tenant uses at the gate.
    pub hash: PasswordHash,
    /// Login at the server.
    pub server_login: String,
    /// Its password.
    pub server_password: Password,
}

/// All mapped logins, by canonical login.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Credentials(pub HashMap<String, Arc<Mapped>>);

impl Credentials {
    /// The mapping of a canonical login.
    #[must_use]
    pub fn of(&self, canonical: &str) -> Option<&Arc<Mapped>> {
        self.0.get(canonical)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_verifies_its_password_and_no_other() {
        let hash = PasswordHash::with("pässword", vec![7; SALT_LEN], ROUNDS_MIN).unwrap();
        let again = PasswordHash::parse(&hash.to_text()).unwrap();
        assert_eq!(again, hash);
        assert!(again.verify(&Password::from_text("pässword")));
        for wrong in ["", "Pässword", "pässword ", "pässword\0"] {
            assert!(!again.verify(&Password::from_text(wrong)), "{wrong:?}");
        }
        assert!(!format!("{hash:?}").contains("0707"));
    }

    /// The value is that of an independent implementation: Python's hashlib.pbkdf2_hmac("sha256", b"demo", bytes(16), 100000).
    #[test]
    fn a_hash_is_what_other_programs_compute() {
        let text = "pbkdf2-sha256:100000:00000000000000000000000000000000:a8aa28c2b48ee9ee3f11af3b9076c9f9ea36a24dc331eb3a97852ec80077e57b";
        assert!(
            PasswordHash::parse(text)
                .unwrap()
                .verify(&Password::from_text("demo"))
        );
    }

    #[test]
    fn weak_and_broken_hashes_are_not_taken() {
        let good = PasswordHash::with("x", vec![7; SALT_LEN], ROUNDS_MIN)
            .unwrap()
            .to_text();
        for broken in [
            "",
            "demo",
            &good.replace("100000", "1000"),
            &good.replace("100000", "4000000000"),
            &good.replace("sha256", "sha1"),
            &good[..good.len() - 1],
            &format!("{good}:x"),
            &good.replace("0707070707070707", ""),
        ] {
            assert!(PasswordHash::parse(broken).is_err(), "{broken}");
        }
    }
}
