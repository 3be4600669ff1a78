//! The federated authentication token message [MS-TDS 2.2.6.3].

use crate::body::Body;
use crate::error::WireError;

/// A token message. `Debug` hides the token.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FedAuthToken<'a> {
    /// The token: UTF-16LE text of a JWT for MSAL.
    pub token: &'a [u8],
    /// Nonce; there if and only if the server's PRELOGIN had NONCEOPT.
    pub nonce: Option<[u8; 32]>,
}

impl std::fmt::Debug for FedAuthToken<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "FedAuthToken({} bytes, nonce {})",
            self.token.len(),
            self.nonce.is_some()
        )
    }
}

impl<'a> FedAuthToken<'a> {
    /// Reads a token message.
    ///
    /// # Errors
    /// The client's fault: lengths that do not add up.
    pub fn parse(body: &'a [u8]) -> Result<Self, WireError> {
        let mut r = Body::new(body, "federated authentication token");
        let total = r.u32()? as usize;
        if total != r.rest().len() {
            return Err(
                r.invalid("the length of the federated authentication token is not that of its message")
            );
        }
        let len = r.u32()? as usize;
        let token = r.take(len)?;
        let nonce = if r.is_empty() { None } else { Some(r.array()?) };
        if !r.is_empty() {
            return Err(r.invalid("bytes behind the nonce of a federated authentication token"));
        }
        Ok(Self { token, nonce })
    }
}
