//! The `side-by-side` program: Weir beside HAProxy and beside nothing, in one run; floors decide its exit code.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use weir_benches::ends::{client, origin};
use weir_benches::failure::{Failure, Trying};
use weir_benches::rounds::{Plan, run};
use weir_benches::stage::Stage;
use weir_benches::workload::Size;
use weir_benches::{decoders, figures, kernel, permit, report};

/// Exit code of a floor that is missed.
const EXIT_BELOW: u8 = 1;
/// Exit code of a run that could not be made.
const EXIT_FAILED: u8 = 2;
/// Rounds of a run that is published.
const ROUNDS: usize = 9;
/// Rounds of a quick one.
const ROUNDS_QUICK: usize = 3;

/// Measures Weir beside HAProxy in interleaved rounds, checks every answer and every charge, and judges the ratios.
#[derive(Parser)]
#[command(name = "side-by-side", version)]
struct Cli {
    #[command(subcommand)]
    end: Option<End>,
    /// What is judged only, in fewer rounds: at most five minutes.
    #[arg(long)]
    quick: bool,
    /// A few milliseconds of everything: shows that all counts are right, and nothing about time. Nothing is judged.
    #[arg(long, conflicts_with = "quick")]
    tiny: bool,
    /// Interleaved rounds.
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Only what has this in its name: WORKLOAD/ENCRYPTION, for example stream-1/plain.
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Print the judged figures as a JSON array, and nothing else, on standard output.
    #[arg(long)]
    json: bool,
    /// Write benches/record/DATE-COMMIT.json.
    #[arg(long)]
    record: bool,
}

/// The ends, which are processes of their own.
#[derive(Subcommand)]
enum End {
    /// The origin.
    #[command(hide = true)]
    EndServer {
        /// Its certificate, as JSON.
        certificate: String,
    },
    /// The client.
    #[command(hide = true)]
    EndClient {
        /// What to do, as JSON.
        order: String,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match &cli.end {
        Some(end) => serve(end).map(|()| true),
        None => bench(&cli),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(EXIT_BELOW),
        Err(failure) => {
            eprintln!("side-by-side: {failure}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}

fn serve(end: &End) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.trying("runtime")?;
    match end {
        End::EndServer { certificate } => {
            let certificate = serde_json::from_str(certificate).trying("certificate")?;
            runtime.block_on(origin::serve(certificate))
        }
        End::EndClient { order } => {
            let order = serde_json::from_str(order).trying("order")?;
            runtime.block_on(client::run(order))
        }
    }
}

/// True if every floor holds.
fn bench(cli: &Cli) -> Result<bool, Failure> {
    let (size, rounds) = match (cli.quick, cli.tiny) {
        (true, _) => (Size::Quick, ROUNDS_QUICK),
        (_, true) => (Size::Tiny, 1),
        _ => (Size::Full, ROUNDS),
    };
    let plan = Plan {
        size,
        rounds: cli.rounds.unwrap_or(rounds).max(1),
        only: cli.only.clone(),
    };
    let walker = plan
        .only
        .as_deref()
        .is_none_or(|only| kernel::NAME.contains(only));
    let chunk = plan
        .only
        .as_deref()
        .is_none_or(|only| permit::NAME.contains(only));
    let mut stage = Stage::set(size != Size::Tiny)?;
    let results = run(&plan, &mut stage)?;
    if results.cells.is_empty() && !walker && !chunk {
        return Err(Failure::new(
            "nothing has this in its name; names are like stream-1/plain",
        ));
    }
    let charged = stage.audit()?;
    let mut figures = figures::judge(&results.cells, size);
    if walker {
        figures.push(kernel::figure(plan.rounds, size)?);
        figures.extend(decoders::figures(plan.rounds, size)?);
    }
    if chunk {
        figures.push(permit::figure(plan.rounds, size)?);
    }
    if cli.json {
        println!("{}", serde_json::to_string_pretty(&figures).trying("figures")?);
    } else {
        print!(
            "{}\n{}\n",
            report::measured(&results.cells),
            report::system_calls(&results)
        );
        println!("{}", report::judged(&figures));
        println!("Every answer was whole; {charged} rows went through Weir, and each of them was charged.");
    }
    if cli.record {
        let path = report::record(&plan, stage.haproxy_version(), &results, &figures)?;
        eprintln!("{}", path.display());
    }
    stage.clear()?;
    Ok(figures.iter().all(|figure| figure.ok))
}
