//! The drivers under test and how their programs are started.

use std::path::PathBuf;
use std::process::Command;

use weir_protocol_tests::drivers::{directory, interpreter, node_program};

/// A driver with its program.
pub(super) struct Program {
    /// How tables and expectations name it.
    pub(super) driver: &'static str,
    /// What it is, for the table.
    pub(super) what: &'static str,
    start: fn(&str) -> Command,
    /// Rows that it asks for by itself when it logs in; all others must be able to log in without credit.
    pub(super) login_rows: u64,
    /// The file that pins its version, and what stands before the version there.
    pub(super) pinned: (&'static str, &'static str),
}

impl Program {
    /// Its program, without arguments of the contract.
    pub(super) fn command(&self) -> Command {
        (self.start)(self.driver)
    }
}

/// All that run here.
pub(super) const ALL: [Program; 10] = [
    Program {
        driver: "pymssql",
        what: "Python, FreeTDS's DB-Library",
        start: python,
        login_rows: 0,
        pinned: ("drivers/python/requirements.txt", "pymssql=="),
    },
    Program {
        driver: "python-tds",
        what: "Python",
        start: python,
        login_rows: 0,
        pinned: ("drivers/python/requirements.txt", "python-tds=="),
    },
    Program {
        driver: "mssql-python",
        what: "Python, Microsoft's ODBC Driver 18",
        start: python,
        login_rows: 0,
        pinned: ("drivers/python/requirements.txt", "mssql-python=="),
    },
    Program {
        driver: "pyodbc",
        what: "Python, FreeTDS's ODBC driver of Debian",
        start: python,
        login_rows: 0,
        pinned: ("drivers/python/requirements.txt", "pyodbc=="),
    },
    Program {
        driver: "tedious",
        what: "JavaScript",
        start: node,
        login_rows: 0,
        pinned: ("drivers/node/package.json", "\"tedious\": \""),
    },
    Program {
        driver: "tiberius",
        what: "Rust",
        start: rust,
        login_rows: 0,
        pinned: ("../Cargo.lock", "name = \"tiberius\"\nversion = \""),
    },
    Program {
        driver: "mssql-tds",
        what: "Rust, Microsoft's",
        start: rust,
        login_rows: 0,
        pinned: ("../Cargo.lock", "name = \"mssql-tds\"\nversion = \""),
    },
    Program {
        driver: "go-mssqldb",
        what: "Go",
        start: go,
        login_rows: 0,
        pinned: ("drivers/go/go.mod", "github.com/microsoft/go-mssqldb v"),
    },
    Program {
        driver: "mssql-jdbc",
        what: "Java, Microsoft's",
        start: java,
        login_rows: 0,
        pinned: (
            "drivers/java/pom.xml",
            "<artifactId>mssql-jdbc</artifactId>\n      <version>",
        ),
    },
    Program {
        driver: "jtds",
        what: "Java, TDS up to 7.1",
        start: java,
        login_rows: 1,
        pinned: (
            "drivers/java/pom.xml",
            "<artifactId>jtds</artifactId>\n      <version>",
        ),
    },
];

fn python(driver: &str) -> Command {
    let libraries = installed(&format!(
        ".weir/odbc/root/usr/lib/{}-linux-gnu",
        std::env::consts::ARCH
    ));
    let mut command = Command::new(interpreter());
    command
        .arg("-u")
        .arg(directory().join("python/conform.py"))
        .arg(driver)
        // Its bundled files would be written beside the sources.
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("WEIR_TEST_TDSODBC", libraries.join("odbc/libtdsodbc.so"))
        .env("LD_LIBRARY_PATH", libraries);
    command
}

fn node(_driver: &str) -> Command {
    let mut command = Command::new(node_program());
    command.arg(directory().join("node/conform.mjs"));
    command
}

fn rust(driver: &str) -> Command {
    let own = std::env::current_exe().unwrap_or_default();
    let path = own
        .parent()
        .and_then(std::path::Path::parent)
        .map(|beside| beside.join("examples/conform"))
        .unwrap_or_default();
    assert!(
        path.exists(),
        "{} is missing: run scripts/test, which builds it",
        path.display()
    );
    let mut command = Command::new(path);
    command.arg(driver);
    command
}

fn go(_driver: &str) -> Command {
    Command::new(installed(".weir/test/go/conform"))
}

fn java(driver: &str) -> Command {
    let classes = installed(".weir/test/java").join("*");
    let mut command = Command::new("java");
    // Small and quick to start: many of these run one after another.
    command
        .args(["-Xmx128m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp"])
        .arg(classes)
        .args(["Conform", driver]);
    command
}

/// A path that `scripts/test` made below the checkout.
fn installed(path: &str) -> PathBuf {
    let root = directory().join("../..").join(path);
    assert!(
        root.exists(),
        "{} is missing: run scripts/test --install-only",
        root.display()
    );
    root
}
