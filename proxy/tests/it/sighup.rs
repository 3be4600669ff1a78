//! SIGHUP to the program itself: new handshakes get the new certificate, sessions that are open go on.

use std::{
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use tempfile::TempDir;
use weir_sandbox::EncryptionPolicy;
use weir_tds::prelogin::Encryption;

use crate::{
    encryption::{Files, blocking, log_in, use_it},
    generous_billing,
};

/// Longest wait for what the process says next.
const SAID_WITHIN: Duration = Duration::from_secs(30);

/// `weir-proxy run` as an operator has it, and what it logs.
struct Process {
    child: Child,
    said: mpsc::Receiver<String>,
    _dir: TempDir,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _waited = self.child.wait();
    }
}

impl Process {
    /// Behind it a server in the clear; the process and its address once it is ready.
    async fn start(files: &Files, upstream: SocketAddr) -> (Self, SocketAddr) {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_weir-proxy"))
            .args(["run", "--listen", "127.0.0.1:0", "--token", "t"])
            .args([
                "--upstream",
                &upstream.to_string(),
                "--upstream-encryption",
                "none",
            ])
            .args([
                "--billing-url",
                &format!("http://{}", generous_billing::serve().await),
            ])
            .arg("--data-dir")
            .arg(dir.path().join("journal"))
            .arg("--outbox-path")
            .arg(dir.path().join("outbox.db"))
            .arg("--tls-cert")
            .arg(files.path("cert.pem"))
            .arg("--tls-key")
            .arg(files.path("key.pem"))
            .env("WEIR_LOG", "info")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (say, said) = mpsc::channel();
        std::thread::spawn(move || {
            lines
                .map_while(Result::ok)
                .try_for_each(|line| say.send(line))
                .ok()
        });
        let mut process = Self {
            child,
            said,
            _dir: dir,
        };
        let ready = process.says("proxy is ready");
        let address = ready.split("listen=").nth(1).unwrap().trim().parse().unwrap();
        (process, address)
    }

    /// The next line of its log that has these words.
    fn says(&mut self, words: &str) -> String {
        loop {
            let line = self.said.recv_timeout(SAID_WITHIN).expect(words);
            if line.contains(words) {
                return line;
            }
        }
    }

    fn hang_up(&self) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-HUP", &pid]).status().unwrap();
        assert!(sent.success());
    }
}

/// Another certificate and key in the same files, of the same length and date: who only looks at the files sees no
/// change.
fn replace_unnoticed(files: &mut Files) {
    let next = tempfile::tempdir().unwrap();
    let names = ["cert.pem", "key.pem"];
    let lengths = |dir: &Path| names.map(|name| std::fs::metadata(dir.join(name)).unwrap().len());
    // A signature has 70 to 72 bytes.
    let made = (0..1_000).find_map(|_| {
        let made = Files::write(next.path(), "localhost", false);
        (lengths(next.path()) == lengths(files.dir.path())).then_some(made)
    });
    files.certificate = made.expect("one of the same length");
    for name in names {
        let bytes = std::fs::read(next.path().join(name)).unwrap();
        let mut file = std::fs::File::options()
            .write(true)
            .open(files.path(name))
            .unwrap();
        let dated = file.metadata().unwrap().modified().unwrap();
        file.write_all(&bytes).unwrap();
        file.set_modified(dated).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_renews_the_certificate_of_a_running_process() {
    let mut files = Files::new("localhost", false);
    let server = files.sandbox(EncryptionPolicy::None).await;
    let (mut process, address) = Process::start(&files, server.addr).await;
    let old = files.driver_at(address, Encryption::Strict);
    let open = use_it(log_in(old.clone()).await).await;
    replace_unnoticed(&mut files);
    process.hang_up();
    process.says("TLS is renewed");
    assert!(
        blocking(move || old.log_in().is_err()).await,
        "the old certificate is still shown"
    );
    for encryption in [Encryption::Off, Encryption::On, Encryption::Strict] {
        use_it(log_in(files.driver_at(address, encryption)).await).await;
    }
    use_it(open).await;
    drop(process);
    server.stop().await;
}
