//! What the demo prints when it runs: connection strings, the console, and the line that scripts wait for.

use serde_json::Value;

use crate::running::Running;

/// The line that says that drivers can connect.
const READY: &str = "weir demo ready";

/// Everything that a newcomer needs, the ready line last.
pub(crate) fn text(running: &Running, token: &str, account: &Value) -> String {
    let (host, port) = (running.listen.ip(), running.listen.port());
    let field = |name: &str| {
        account
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or("-")
            .to_owned()
    };
    let cert = running.data_dir.join("tls").join("cert.pem");
    format!(
        "\
Weir demo: a metered SQL Server at {host}:{port}, login demo, password demo, database demo
  tables    orders (100 000 rows), events (1 000 000 rows)
  price     0.000010 USD per row delivered
  credit    {available} {currency} available of {balance} {currency}
  data      {data}
  TLS       {cert} (self-signed; SAN localhost, 127.0.0.1)

Connect (any driver; only the address changes):
  sqlcmd    sqlcmd -S {host},{port} -U demo -P demo -d demo -C -Q \"select count(*) from orders\"
  pymssql   pymssql.connect(server='{host}', port='{port}', user='demo', password='demo', database='demo')
  tedious   {{server: '{host}', authentication: {{type: 'default', options: {{userName: 'demo', password: 'demo'}}}},
             options: {{port: {port}, database: 'demo', encrypt: true, trustServerCertificate: true}}}}
  JDBC      jdbc:sqlserver://{host}:{port};databaseName=demo;user=demo;password=demo;encrypt=true;trustServerCertificate=true
  tiberius  server=tcp:{host},{port};user=demo;password=demo;database=demo;encrypt=true;TrustServerCertificate=true

Operate (in another terminal):
  weir account show demo      weir top-up demo 1.00      weir usage --account demo      weir reconcile
  console   {console}/  sign in with the token  {token}
  wallet    http://{wallet}/wallets/{user}

{READY}
",
        available = field("available"),
        balance = field("balance"),
        currency = field("currency"),
        data = running.data_dir.display(),
        cert = cert.display(),
        console = running.server(),
        wallet = running.wallet,
        user = field("user_id"),
    )
}
