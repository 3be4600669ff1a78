//! SQL Server Browser datagrams: what parses is written alike; an answer stays within its bound.

use weir_tds::browser::{DATA_MAX, Instance, REQUEST_MAX, Request, response};

use super::oracle;

/// The input is a datagram.
pub(super) fn target(input: &[u8]) {
    let Ok(request) = oracle::before_login(input.len(), || Request::parse(input)) else {
        return;
    };
    assert_eq!(request.encode(), input, "written as it was read");
    assert!(
        input.len() <= REQUEST_MAX + 1,
        "a request of {} bytes",
        input.len()
    );
    if let Request::Instance(name) = request {
        let instance = Instance {
            server: "GATE".into(),
            name,
            version: "16.0.1000.6".into(),
            port: 1433,
        };
        let count = 1 + input.len() % 20;
        let answer = response(std::iter::repeat_n(&instance, count)).expect("one instance fits");
        assert!(
            answer.len() <= 3 + DATA_MAX,
            "an answer of {} bytes",
            answer.len()
        );
    }
}
