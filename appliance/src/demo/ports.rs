//! Are the addresses free? Asked before anything starts, so that the error names the flag and not a service.

use std::net::{SocketAddr, TcpListener};

use crate::cli::DemoArgs;

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {address}: {error}; choose another with --{flag} ADDR:PORT (port 0 takes a free one)"
)]
pub(crate) struct PortError {
    flag: &'static str,
    address: SocketAddr,
    error: std::io::Error,
}

/// Binds and lets go each address that a flag names.
pub(crate) fn check(args: &DemoArgs) -> Result<(), PortError> {
    let named = [
        ("listen", args.listen),
        ("console", args.console),
        ("wallet", args.wallet),
    ];
    // Held until all are bound: two flags with one address are found, too.
    let mut held = Vec::with_capacity(named.len());
    for (flag, address) in named {
        let listener = TcpListener::bind(address).map_err(|error| PortError { flag, address, error })?;
        held.push(listener);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use weir_contracts::money::Amount;

    use super::*;

    #[test]
    fn a_taken_port_is_named_by_its_flag() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut args = DemoArgs {
            listen: any,
            console: taken,
            wallet: any,
            credit: Amount::ZERO,
        };
        assert!(check(&args).is_ok());
        args.wallet = taken;
        let error = check(&args).unwrap_err().to_string();
        assert!(
            error.contains("--wallet") && error.contains(&taken.to_string()),
            "{error}"
        );
    }
}
