//! The command line: every command, flag and `WEIR_…` variable, and nothing that acts on them.

use std::{net::SocketAddr, path::PathBuf};

use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand, parser::ValueSource};
use weir_contracts::{
    ids::AccountId,
    money::{Amount, Currency},
};

/// What was asked, and where the data directory's name came from (a flag outranks WEIR_TOKEN_FILE, a variable does not).
pub(crate) struct Invocation {
    pub(crate) cli: Cli,
    pub(crate) data_dir_is_flag: bool,
}

/// A metering gateway for SQL Server: demo and operator's commands.
#[derive(Debug, Parser)]
#[command(name = "weir", version, about, propagate_version = true, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags that may stand before or after the command.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Address of billing's REST API, for example http://127.0.0.1:3005 [default: the running demo's]
    #[arg(long, global = true, env = "WEIR_SERVER", value_name = "URL")]
    pub(crate) server: Option<String>,
    /// File with the bearer token [default: DIR/token of the data directory] [env: WEIR_TOKEN_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// The demo's directory [default: $XDG_DATA_HOME/weir/demo]
    #[arg(long, global = true, env = "WEIR_DATA_DIR", value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Print JSON instead of tables
    #[arg(long, global = true, action = ArgAction::SetTrue)]
    pub(crate) json: bool,
}

/// What weir can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run everything in one process: sandbox SQL Server, proxy, billing, wallet, console
    Demo(DemoArgs),
    /// Show, list, create, freeze and unfreeze accounts
    #[command(subcommand)]
    Account(AccountCommand),
    /// Add credit to an account
    TopUp(TopUpArgs),
    /// What an account was credited and charged, and its usage summed up
    Statement(StatementArgs),
    /// An account's requests, oldest first, one line each
    Usage(UsageArgs),
    /// Prove that usage, charges, captures, read model and items add up; exit code 1 when they do not
    Reconcile,
    /// Prove that a store, or a SQL Server behind Weir, does what Weir promises; exit code 1 when it does not
    Selftest(SelftestArgs),
}

/// Flags of `weir demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Where SQL Server drivers connect
    #[arg(
        long,
        env = "WEIR_LISTEN",
        default_value = "127.0.0.1:11433",
        value_name = "ADDR:PORT"
    )]
    pub(crate) listen: SocketAddr,
    /// Console and billing REST
    #[arg(
        long,
        env = "WEIR_CONSOLE",
        default_value = "127.0.0.1:3005",
        value_name = "ADDR:PORT"
    )]
    pub(crate) console: SocketAddr,
    /// Wallet REST
    #[arg(
        long,
        env = "WEIR_WALLET",
        default_value = "127.0.0.1:3003",
        value_name = "ADDR:PORT"
    )]
    pub(crate) wallet: SocketAddr,
    /// The demo tenant's credit in USD, when the directory is made; ignored when it is continued
    #[arg(long, env = "WEIR_CREDIT", default_value = "5.00", value_parser = not_negative, value_name = "AMOUNT")]
    pub(crate) credit: Amount,
}

/// `weir account …`
#[derive(Debug, Subcommand)]
pub(crate) enum AccountCommand {
    /// Balance, held and available credit, status and terms
    Show {
        /// The account
        account: AccountId,
        /// First have its leases closed and wait until every response that had ended is rated and captured
        #[arg(long)]
        wait_settled: bool,
    },
    /// Every account
    List,
    /// Make an account with its wallet
    Create(CreateArgs),
    /// Shut the gate for an account
    Freeze {
        /// The account
        account: AccountId,
    },
    /// Open the gate again
    Unfreeze {
        /// The account
        account: AccountId,
    },
}

/// Flags of `weir account create`.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// Its name: 1 to 64 of a-z 0-9 _ . -
    pub(crate) account: AccountId,
    /// The SQL Server login that it uses [default: the account's name]
    #[arg(long)]
    pub(crate) login: Option<String>,
    /// Currency of wallet and tariff
    #[arg(long, default_value = "USD")]
    pub(crate) currency: Currency,
    /// Credit to start with
    #[arg(long, default_value = "0", value_parser = not_negative, value_name = "AMOUNT")]
    pub(crate) credit: Amount,
    /// Tariff version
    #[arg(long, default_value = "demo@1")]
    pub(crate) tariff: String,
    /// observe meters only, enforce also cuts
    #[arg(long, default_value = "observe", value_parser = ["observe", "enforce"])]
    pub(crate) mode: String,
}

/// Arguments of `weir top-up`.
#[derive(Debug, Args)]
pub(crate) struct TopUpArgs {
    /// The account
    pub(crate) account: AccountId,
    /// How much, in the account's currency, for example 1.00
    #[arg(value_parser = positive)]
    pub(crate) amount: Amount,
    /// Names this top-up: the same key again adds nothing [default: a new one]
    #[arg(long)]
    pub(crate) key: Option<String>,
}

/// Arguments of `weir statement`.
#[derive(Debug, Args)]
pub(crate) struct StatementArgs {
    /// The account
    pub(crate) account: AccountId,
}

/// Arguments of `weir usage`.
#[derive(Debug, Args)]
pub(crate) struct UsageArgs {
    /// The account
    #[arg(long)]
    pub(crate) account: AccountId,
}

/// Reads the process's arguments; on wrong usage prints why and exits with 2.
pub(crate) fn parse() -> Invocation {
    let matches = Cli::command().get_matches();
    match Cli::from_arg_matches(&matches) {
        Ok(cli) => Invocation {
            cli,
            data_dir_is_flag: matches.value_source("data_dir") == Some(ValueSource::CommandLine),
        },
        Err(error) => error.exit(),
    }
}

/// Flags of `weir selftest`: what is tested.
#[derive(Debug, Args)]
pub(crate) struct SelftestArgs {
    /// The store of financial items that billing is configured with (SQL Server, or its embedded file)
    #[arg(long, required_unless_present = "upstream", conflicts_with = "upstream")]
    pub(crate) items: bool,
    /// A SQL Server, asked directly and through a Weir of its own: read-only statements and temporary tables
    #[arg(long, value_name = "HOST:PORT", requires_all = ["login", "password_file"])]
    pub(crate) upstream: Option<String>,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// How the server of `weir selftest --upstream` is reached.
#[derive(Debug, Args)]
pub(crate) struct ServerArgs {
    /// SQL login to test with
    #[arg(long, value_name = "LOGIN")]
    pub(crate) login: Option<String>,
    /// File that holds its password
    #[arg(long, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
    /// Database [default: the login's own]
    #[arg(long, default_value = "", value_name = "NAME")]
    pub(crate) database: String,
    /// PEM certificates that the server's certificate must chain to, or its own [default: the system's authorities]
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Name in the server's certificate [default: HOST]
    #[arg(long, value_name = "NAME")]
    pub(crate) host_name: Option<String>,
    /// Believe any certificate: whoever stands between can read the login and the data
    #[arg(long, conflicts_with = "ca")]
    pub(crate) trust: bool,
}

fn not_negative(text: &str) -> Result<Amount, String> {
    let amount: Amount = text
        .parse()
        .map_err(|e: weir_contracts::money::MoneyError| e.to_string())?;
    if amount.is_negative() {
        return Err("must not be below zero".to_owned());
    }
    Ok(amount)
}

fn positive(text: &str) -> Result<Amount, String> {
    let amount = not_negative(text)?;
    if amount.is_zero() {
        return Err("must be above zero".to_owned());
    }
    Ok(amount)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from([&["weir"], line].concat())
    }

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_flags_may_stand_after_the_subcommand() {
        let cli = parsed(&[
            "account",
            "show",
            "demo",
            "--json",
            "--server",
            "http://h:1",
            "--data-dir",
            "/d",
        ])
        .unwrap();
        assert!(cli.global.json);
        assert_eq!(cli.global.server.as_deref(), Some("http://h:1"));
        assert_eq!(cli.global.data_dir, Some(PathBuf::from("/d")));
    }

    #[test]
    fn amounts_and_accounts_are_checked_before_anything_is_asked() {
        for line in [
            &["top-up", "demo", "0"][..],
            &["top-up", "demo", "-1"],
            &["top-up", "demo", "1.0000000001"],
            &["top-up", "Demo", "1"],
            &["demo", "--credit", "-1"],
            &["demo", "--listen", "nowhere"],
            &["usage"],
            &["selftest"],
            &["selftest", "--items", "--upstream", "h:1"],
            &["selftest", "--upstream", "h:1"],
            &["selftest", "--upstream", "h:1", "--login", "l"],
        ] {
            assert_eq!(parsed(line).unwrap_err().exit_code(), 2, "{line:?}");
        }
    }
}
