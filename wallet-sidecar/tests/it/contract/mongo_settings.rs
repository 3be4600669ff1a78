//! What a MongoDB that is set up wrongly is told at the start: over a server that answers as it is told to.

use mongodb::bson::{Document, doc};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use weir_servers::ServerUrl;
use weir_wallet::{adapters::mongo::MongoReadModel, ports::event_store::StoreError};

const OP_REPLY: i32 = 1;
const OP_QUERY: i32 = 2004;
const OP_MSG: i32 = 2013;
/// Far above any message of the check.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// How the server is set up: its version, whether it is read-only, and its answer to a write.
#[derive(Clone)]
struct Setup {
    version: [i32; 2],
    read_only: bool,
    write: Document,
}

impl Setup {
    fn good() -> Self {
        Self {
            version: [7, 0],
            read_only: false,
            write: doc! { "ok": 1, "n": 0 },
        }
    }

    fn writing(write: Document) -> Self {
        Self {
            write,
            ..Self::good()
        }
    }

    fn answer(&self, command: &Document) -> Document {
        let [major, minor] = self.version;
        match command.keys().next().unwrap().to_lowercase().as_str() {
            "hello" | "ismaster" => doc! {
                "ok": 1, "helloOk": true, "ismaster": true, "isWritablePrimary": true, "readOnly": self.read_only,
                "minWireVersion": 0, "maxWireVersion": 21, "maxBsonObjectSize": 1 << 24, "maxMessageSizeBytes": 1 << 25,
                "maxWriteBatchSize": 1000,
            },
            "buildinfo" => {
                doc! { "ok": 1, "version": format!("{major}.{minor}.0"), "versionArray": [major, minor, 0, 0] }
            }
            "delete" => self.write.clone(),
            other => doc! { "ok": 0, "code": 59, "errmsg": format!("no such command: {other}") },
        }
    }

    /// What the adapter says of it.
    async fn verdict(self) -> Result<(), StoreError> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("mongodb://{}/weir", listener.local_addr().unwrap());
        let serving = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let setup = self.clone();
                // A client that goes away ends its connection with an error.
                tokio::spawn(async move { serve(client, &setup).await });
            }
        });
        let verdict = MongoReadModel::check_server(&ServerUrl::from(url)).await;
        serving.abort();
        verdict
    }
}

/// Answers each message of one connection.
async fn serve(mut client: TcpStream, setup: &Setup) -> std::io::Result<()> {
    loop {
        let length = client.read_i32_le().await?;
        let id = client.read_i32_le().await?;
        client.read_i32_le().await?;
        let kind = client.read_i32_le().await?;
        let length = usize::try_from(length).unwrap() - 16;
        assert!(length < MESSAGE_BYTES_MAX);
        let mut body = vec![0; length];
        client.read_exact(&mut body).await?;
        // Before the document: flags and the section's kind; or flags, the collection's name and two numbers.
        let (start, head, reply) = match kind {
            OP_MSG => (5, vec![0; 5], OP_MSG),
            OP_QUERY => {
                let name = body[4..].iter().position(|b| *b == 0).unwrap();
                let mut head = vec![0; 20];
                head[16] = 1;
                (4 + name + 1 + 8, head, OP_REPLY)
            }
            other => panic!("message kind {other}"),
        };
        let command = Document::from_reader(&body[start..]).unwrap();
        let mut answer = Vec::new();
        setup.answer(&command).to_writer(&mut answer).unwrap();
        let length = i32::try_from(16 + head.len() + answer.len()).unwrap();
        let header = [length, 0, id, reply].map(i32::to_le_bytes).concat();
        client.write_all(&[header, head, answer].concat()).await?;
    }
}

#[tokio::test]
async fn a_server_that_can_be_used_is_used() {
    Setup::good().verdict().await.unwrap();
}

#[tokio::test]
async fn a_wrong_setting_is_named_with_its_remedy() {
    let old = Setup {
        version: [4, 2],
        ..Setup::good()
    };
    let read_only = Setup {
        read_only: true,
        ..Setup::good()
    };
    let refused = |code: i32, text: &str| {
        Setup::writing(doc! { "ok": 0, "code": code, "codeName": "X", "errmsg": text })
    };
    let concern = |code: i32, text: &str| {
        Setup::writing(doc! {
            "ok": 1, "n": 0, "writeConcernError": { "code": code, "codeName": "X", "errmsg": text },
        })
    };
    for (setup, named) in [
        (old, ["4.2.0", "4.4 or newer"]),
        (read_only, ["read-only", "queryableBackupMode"]),
        (
            refused(
                2,
                "cannot use 'j' option when a host does not have journaling enabled",
            ),
            ["journaling enabled", "with journaling on"],
        ),
        (
            refused(13, "not authorized on weir"),
            ["not authorized", "role readWrite"],
        ),
        (refused(18, "Authentication failed."), ["failed", "authSource"]),
        (
            concern(100, "Not enough data-bearing nodes"),
            ["data-bearing", "add members"],
        ),
    ] {
        let error = setup.verdict().await.unwrap_err();
        assert!(matches!(error, StoreError::Settings(_)), "{error:?}");
        let text = error.to_string();
        assert!(named.iter().all(|part| text.contains(part)), "{named:?}: {text}");
    }
    // A majority that is away may come back.
    let late = concern(64, "waiting for replication timed out").verdict().await;
    assert!(matches!(late, Err(StoreError::Unavailable(_))), "{late:?}");
}

#[tokio::test]
async fn an_address_that_cannot_work_is_refused_without_its_password() {
    for url in [
        "mongodb://weir:secret%@h/weir",
        "mongodb://weir:secret@h:port/weir",
        "mongodb://weir:secret@h/",
        "mongodb://weir:secret@h/weir?authMechanism=none",
    ] {
        let error = MongoReadModel::check_server(&url.into()).await.unwrap_err();
        assert!(matches!(error, StoreError::Settings(_)), "{url}: {error:?}");
        assert!(!format!("{error} {error:?}").contains("secret"), "{url}: {error}");
    }
}
