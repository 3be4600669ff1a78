//! The `kernels` program: counts each kernel's instructions under callgrind, and judges them by the committed limits.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use weir_benches::failure::{Failure, Trying};
use weir_benches::instructions;
use weir_benches::kernels::{ALL, Kernel};

/// Exit code of a limit that does not hold.
const EXIT_OVER: u8 = 1;
/// Exit code of a run that could not be made.
const EXIT_FAILED: u8 = 2;

/// Instructions of the data path's parts, and of the parts behind it.
#[derive(Parser)]
#[command(name = "kernels", version)]
struct Cli {
    #[command(subcommand)]
    command: Asked,
}

#[derive(Subcommand)]
enum Asked {
    /// Counts, and fails if a kernel takes more than 3 % over its limit in benches/instructions.toml.
    Check {
        /// Only kernels with this in their name.
        #[arg(default_value = "")]
        only: String,
    },
    /// Counts, and makes the counts the limits.
    Update {
        /// Only kernels with this in their name.
        #[arg(default_value = "")]
        only: String,
    },
    /// Names them.
    List,
    /// Runs a kernel; prints how many units it has done.
    Run {
        /// Its name.
        kernel: String,
        /// How often.
        turns: u32,
    },
}

fn main() -> ExitCode {
    match obey(Cli::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(EXIT_OVER),
        Err(failure) => {
            eprintln!("kernels: {failure}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}

/// True if every limit holds.
fn obey(asked: Asked) -> Result<bool, Failure> {
    let count = |only: &str| instructions::count(&std::env::current_exe().trying("this program")?, only);
    match asked {
        Asked::Check { only } => {
            let (table, holds) = instructions::judge(&count(&only)?, &instructions::limits()?);
            print!("{table}");
            Ok(holds)
        }
        Asked::Update { only } => {
            let counts = count(&only)?;
            instructions::update(&counts)?;
            let (table, holds) = instructions::judge(&counts, &instructions::limits()?);
            print!("{table}");
            Ok(holds)
        }
        Asked::List => {
            ALL.iter().for_each(|kernel| println!("{}", kernel.name));
            Ok(true)
        }
        Asked::Run { kernel, turns } => {
            let kernel =
                Kernel::named(&kernel).trying("there is no kernel of that name: see `kernels list`")?;
            let mut work = kernel.prepare()?;
            let units = (0..turns).try_fold(0, |units, _| Ok::<_, Failure>(units + work()?))?;
            println!("{units}");
            Ok(true)
        }
    }
}
