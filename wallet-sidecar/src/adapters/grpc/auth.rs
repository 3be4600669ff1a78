//! The bearer token on every call.

use sha2::{Digest, Sha256};
use tonic::{Request, Status, service::Interceptor};

/// Lets a call pass only with `authorization: Bearer <token>`.
#[derive(Clone)]
pub struct BearerToken {
    digest: [u8; 32],
}

impl BearerToken {
    /// Of the token that callers must bring. Only its digest is kept.
    #[must_use]
    pub fn new(token: &str) -> Self {
        Self {
            digest: Sha256::digest(token.as_bytes()).into(),
        }
    }

    /// True when the header's value brings the token. Digests are compared, so timing tells nothing about the token.
    #[must_use]
    pub fn admits(&self, authorization: Option<&str>) -> bool {
        let Some(given) = authorization.and_then(|value| value.strip_prefix("Bearer ")) else {
            return false;
        };
        let given: [u8; 32] = Sha256::digest(given.trim().as_bytes()).into();
        given == self.digest
    }
}

impl Interceptor for BearerToken {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let value = request
            .metadata()
            .get("authorization")
            .and_then(|v| v.to_str().ok());
        if self.admits(value) {
            Ok(request)
        } else {
            Err(Status::unauthenticated(
                "UNAUTHENTICATED: bring `authorization: Bearer <token>`",
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_itself_passes() {
        let guard = BearerToken::new("0123456789abcdef");
        assert!(guard.admits(Some("Bearer 0123456789abcdef")));
        for other in [
            None,
            Some(""),
            Some("Bearer "),
            Some("0123456789abcdef"),
            Some("Bearer 0123456789abcdeF"),
        ] {
            assert!(!guard.admits(other), "{other:?}");
        }
    }
}
