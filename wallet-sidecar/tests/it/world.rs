//! A wallet service on free ports and a fresh directory, and clients for it.

use std::net::SocketAddr;

use tempfile::TempDir;
use tonic::{
    Request, Status,
    metadata::MetadataValue,
    service::interceptor::InterceptedService,
    transport::{Channel, Endpoint},
};
use weir_contracts::proto::wallet::{self as proto, wallets_client::WalletsClient};
use weir_wallet::{Config, Running};

pub(crate) const TOKEN: &str = "test-token-0123456789";

#[derive(Clone)]
pub(crate) struct Bearer(pub(crate) &'static str);

impl tonic::service::Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let value = MetadataValue::try_from(format!("Bearer {}", self.0)).unwrap();
        request.metadata_mut().insert("authorization", value);
        Ok(request)
    }
}

pub(crate) type Client = WalletsClient<InterceptedService<Channel, Bearer>>;

/// Addresses of the servers that a service uses; none stands for the embedded adapter.
#[derive(Clone, Default)]
pub(crate) struct Servers {
    pub(crate) amqp_url: Option<String>,
    /// With the schema.
    pub(crate) database_url: Option<(String, String)>,
    pub(crate) mongodb_url: Option<String>,
}

impl Servers {
    /// As a program's variables.
    pub(crate) fn variables(&self) -> Vec<(&'static str, String)> {
        let mut variables = Vec::new();
        if let Some(url) = &self.amqp_url {
            variables.push(("WEIR_AMQP_URL", url.clone()));
        }
        if let Some((url, schema)) = &self.database_url {
            variables.push(("WEIR_DATABASE_URL", url.clone()));
            variables.push(("WEIR_DATABASE_SCHEMA", schema.clone()));
        }
        if let Some(url) = &self.mongodb_url {
            variables.push(("WEIR_MONGODB_URL", url.clone()));
        }
        variables
    }

    fn config(&self, config: Config) -> Config {
        let url = |text: &String| text.as_str().into();
        let mut config = Config {
            amqp_url: self.amqp_url.as_ref().map(url),
            mongodb_url: self.mongodb_url.as_ref().map(url),
            ..config
        };
        if let Some((database, schema)) = &self.database_url {
            config.database_url = Some(url(database));
            config.database_schema.clone_from(schema);
        }
        config
    }
}

pub(crate) struct World {
    dir: TempDir,
    running: Option<Running>,
    servers: Servers,
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::start_on(Servers::default()).await
    }

    pub(crate) async fn start_on(servers: Servers) -> Self {
        let mut world = Self {
            dir: tempfile::tempdir().unwrap(),
            running: None,
            servers,
        };
        world.running = Some(weir_wallet::start(world.config()).await.unwrap());
        world
    }

    pub(crate) fn config(&self) -> Config {
        self.servers.config(Config {
            data_dir: self.dir.path().join("wallet"),
            rest_listen: "127.0.0.1:0".parse().unwrap(),
            grpc_listen: "127.0.0.1:0".parse().unwrap(),
            token: TOKEN.to_owned(),
            broker_path: self.dir.path().join("broker.db"),
            ..Config::default()
        })
    }

    pub(crate) async fn restart(&mut self) {
        self.running.take().unwrap().stop().await;
        self.running = Some(weir_wallet::start(self.config()).await.unwrap());
    }

    pub(crate) async fn stop(mut self) {
        self.running.take().unwrap().stop().await;
    }

    pub(crate) async fn client(&self) -> Client {
        self.client_with(TOKEN).await
    }

    pub(crate) async fn client_with(&self, token: &'static str) -> Client {
        let address = self.running.as_ref().unwrap().grpc_addr;
        connect(address, token).await.unwrap()
    }

    pub(crate) fn rest_addr(&self) -> SocketAddr {
        self.running.as_ref().unwrap().rest_addr
    }
}

pub(crate) async fn connect(
    address: SocketAddr,
    token: &'static str,
) -> Result<Client, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    Ok(WalletsClient::with_interceptor(
        endpoint.connect().await?,
        Bearer(token),
    ))
}

pub(crate) async fn create(client: &mut Client, user: &str, initial: &str) -> proto::Wallet {
    let request = proto::CreateWalletRequest {
        key: format!("create-{user}"),
        user_id: user.to_owned(),
        currency: "USD".to_owned(),
        initial_balance: initial.to_owned(),
    };
    client.create_wallet(request).await.unwrap().into_inner()
}

pub(crate) fn movement(wallet: &proto::Wallet, key: &str, amount: &str) -> proto::MoveRequest {
    proto::MoveRequest {
        key: key.to_owned(),
        wallet_id: wallet.wallet_id.clone(),
        amount: amount.to_owned(),
        ..Default::default()
    }
}

pub(crate) fn hold(wallet: &proto::Wallet, hold: &str, total: &str) -> proto::PlaceHoldRequest {
    proto::PlaceHoldRequest {
        wallet_id: wallet.wallet_id.clone(),
        hold_id: hold.to_owned(),
        total: total.to_owned(),
    }
}

pub(crate) fn capture(wallet: &proto::Wallet, key: &str, hold: &str, amount: &str) -> proto::CaptureRequest {
    proto::CaptureRequest {
        key: key.to_owned(),
        wallet_id: wallet.wallet_id.clone(),
        hold_id: hold.to_owned(),
        amount: amount.to_owned(),
        description: "usage".to_owned(),
    }
}

pub(crate) fn release(wallet: &proto::Wallet, hold: &str) -> proto::ReleaseHoldRequest {
    proto::ReleaseHoldRequest {
        wallet_id: wallet.wallet_id.clone(),
        hold_id: hold.to_owned(),
    }
}

pub(crate) fn amounts(wallet: &proto::Wallet) -> (&str, &str, &str, &str) {
    (
        &wallet.balance,
        &wallet.held,
        &wallet.available,
        &wallet.receivable,
    )
}
