//! PRELOGIN: what parses is written and read again alike; what both sides agree on is never weaker than the policy.

use weir_tds::prelogin::{Encryption, EncryptionPolicy, Prelogin, TlsScope, accept, negotiate};

use super::oracle;

/// The input is a PRELOGIN body.
pub(super) fn target(input: &[u8]) {
    let Ok(prelogin) = oracle::before_login(input.len(), || Prelogin::parse(input)) else {
        return;
    };
    let _ = prelogin.connection_guid();
    assert_eq!(
        Prelogin::parse(&prelogin.encode()).as_ref(),
        Ok(&prelogin),
        "written and read again"
    );
    let forced = negotiate(prelogin.encryption, EncryptionPolicy::On).scope;
    assert!(
        matches!(forced, None | Some(TlsScope::All)),
        "TLS is forced, and {forced:?} agreed"
    );
    for asked in [Encryption::On, Encryption::Req] {
        let scope = accept(asked, prelogin.encryption);
        assert!(
            matches!(scope, None | Some(TlsScope::All)),
            "{asked:?} became {scope:?}"
        );
    }
}
