//! Verifies passwords at the gate: slow hashes on threads of their own, a bounded number at a time, and a short memory of
//! what was right, so that a pool of connections does not cost one hash per connection.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use ring::{
    hmac,
    rand::{SecureRandom, SystemRandom},
};
use tokio::sync::Semaphore;
use weir_tds::password::Password;
use zeroize::Zeroizing;

use crate::{auth::Mapped, gate::Cause};

/// Hashes that are computed at a time: the data path keeps the other cores.
const HASHING_MAX: usize = 2;
/// Logins that wait for one; more are refused, or guessing passwords would keep tenants out by the deadline.
const WAITING_MAX: usize = 64;
/// Logins whose last right password is remembered, as a keyed hash.
const REMEMBERED_MAX: usize = 10_000;

/// See the file's head.
pub(crate) struct Verifier {
    hashing: Arc<Semaphore>,
    waiting: Semaphore,
    key: hmac::Key,
    right: Mutex<HashMap<String, hmac::Tag>>,
}

impl Verifier {
    /// A verifier that remembers nothing.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub(crate) fn new() -> Result<Self, ring::error::Unspecified> {
        let mut key = [0; 32];
        SystemRandom::new().fill(&mut key)?;
        Ok(Self {
            hashing: Arc::new(Semaphore::new(HASHING_MAX)),
            waiting: Semaphore::new(WAITING_MAX),
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
            right: Mutex::new(HashMap::new()),
        })
    }

    /// Whether this is the password of the mapped `login` (canonical).
    ///
    /// # Errors
    /// What the client is told: it is not, or too many are being checked.
    pub(crate) async fn verify(
        &self,
        login: &str,
        mapped: Arc<Mapped>,
        password: Password,
    ) -> Result<(), Cause> {
        let message = message(&mapped, &password);
        if self.remembers(login, &message) {
            return Ok(());
        }
        let busy = Cause::Limit("too many logins are being checked at once");
        let _place = self.waiting.try_acquire().map_err(|_| busy.clone())?;
        let Ok(permit) = Arc::clone(&self.hashing).acquire_owned().await else {
            return Err(busy);
        };
        let checked = tokio::task::spawn_blocking(move || {
            // A client that leaves meanwhile does not make room for another hash beside this one.
            let _permit = permit;
            mapped.hash.verify(&password)
        });
        match checked.await {
            Ok(true) => {
                self.remember(login, hmac::sign(&self.key, &message));
                Ok(())
            }
            Ok(false) => Err(Cause::LoginFailed),
            Err(_) => Err(busy),
        }
    }

    fn remembers(&self, login: &str, message: &[u8]) -> bool {
        let right = self.right.lock().unwrap_or_else(PoisonError::into_inner);
        // In constant time.
        let same = |tag: &hmac::Tag| hmac::verify(&self.key, message, tag.as_ref()).is_ok();
        right.get(login).is_some_and(same)
    }

    fn remember(&self, login: &str, known: hmac::Tag) {
        let mut right = self.right.lock().unwrap_or_else(PoisonError::into_inner);
        if right.len() >= REMEMBERED_MAX {
            right.clear();
        }
        right.insert(login.to_owned(), known);
    }
}

/// The password under this very hash: another configuration is another message.
fn message(mapped: &Mapped, password: &Password) -> Zeroizing<Vec<u8>> {
    let (hash, text) = (mapped.hash.to_text(), password.to_text());
    let mut message = Zeroizing::new(Vec::with_capacity(hash.len() + 1 + text.len()));
    message.extend_from_slice(hash.as_bytes());
    message.push(0);
    message.extend_from_slice(text.as_bytes());
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::PasswordHash;

    fn mapped(password: &str) -> Arc<Mapped> {
        Arc::new(Mapped {
            hash: PasswordHash::of(password).unwrap(),
            server_login: "app".into(),
            server_password: Password::from_text("other"),
        })
    }

    #[tokio::test]
    async fn the_right_password_is_right_and_remembered_and_a_wrong_one_never_is() {
        let verifier = Verifier::new().unwrap();
        let acme = mapped("word");
        let check = |word: &str| verifier.verify("acme", Arc::clone(&acme), Password::from_text(word));
        assert_eq!(check("Word").await, Err(Cause::LoginFailed));
        assert_eq!(check("word").await, Ok(()));
        // No permit is left: what is remembered needs none.
        let _all = verifier.waiting.acquire_many(WAITING_MAX as u32).await.unwrap();
        assert_eq!(check("word").await, Ok(()));
        assert!(matches!(check("Word").await, Err(Cause::Limit(_))));
        let changed = mapped("new-word");
        let old = verifier
            .verify("acme", changed, Password::from_text("word"))
            .await;
        assert!(
            matches!(old, Err(Cause::Limit(_))),
            "a new hash forgets the old password"
        );
    }
}
