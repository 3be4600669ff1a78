//! The REST face: round trips, pages, keys, refusals with their fault, limits, readiness.

use serde_json::{Value, json};

use crate::world::{TOKEN, World};

/// A blocking client, so that a plain HTTP implementation checks what is served.
#[derive(Clone)]
pub(crate) struct Rest {
    base: String,
    agent: ureq::Agent,
}

pub(crate) type Reply = (u16, Value);

impl Rest {
    pub(crate) fn of(world: &World) -> Self {
        Self::at(world.rest_addr())
    }

    pub(crate) fn at(address: std::net::SocketAddr) -> Self {
        let config = ureq::Agent::config_builder().http_status_as_error(false).build();
        Self {
            base: format!("http://{address}"),
            agent: config.into(),
        }
    }

    async fn send(&self, method: &str, path: &str, key: &str, token: &str, body: Option<String>) -> Reply {
        let mut request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", "application/json");
        if !key.is_empty() {
            request = request.header("idempotency-key", key);
        }
        let request = request.body(body.unwrap_or_default()).unwrap();
        let agent = self.agent.clone();
        let call = move || {
            let mut response = agent.run(request).unwrap();
            let status = response.status().as_u16();
            (status, response.body_mut().read_json().unwrap())
        };
        tokio::task::spawn_blocking(call).await.unwrap()
    }

    async fn text(&self, path: &str) -> String {
        let (agent, url) = (self.agent.clone(), format!("{}{path}", self.base));
        let call = move || {
            agent
                .get(&url)
                .call()
                .unwrap()
                .body_mut()
                .read_to_string()
                .unwrap()
        };
        tokio::task::spawn_blocking(call).await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send("GET", path, "", TOKEN, None).await
    }

    async fn post(&self, path: &str, key: &str, body: Value) -> Reply {
        self.send("POST", path, key, TOKEN, Some(body.to_string())).await
    }

    async fn put(&self, path: &str, body: Value) -> Reply {
        self.send("PUT", path, "", TOKEN, Some(body.to_string())).await
    }
}

fn code(reply: &Reply) -> (u16, &str, &str) {
    let error = &reply.1["error"];
    (
        reply.0,
        error["code"].as_str().unwrap(),
        error["fault"].as_str().unwrap(),
    )
}

#[tokio::test]
async fn a_wallet_is_made_filled_spent_frozen_and_closed() {
    let world = World::start().await;
    let rest = Rest::of(&world);
    let user = "0f0e5f4e-8f0a-4c40-9a5e-111111111111";
    let (status, wallet) = rest
        .post(
            "/wallets",
            "",
            json!({"user_id": user, "initial_balance": "10.50", "currency": "EUR"}),
        )
        .await;
    assert_eq!(status, 201, "{wallet}");
    let (status, seen) = rest.get(&format!("/wallets/{user}")).await;
    assert_eq!(
        (status, &seen),
        (200, &wallet),
        "what was written is read at once"
    );
    for field in ["wallet_id", "created_at", "updated_at"] {
        assert!(!wallet[field].as_str().unwrap().is_empty());
    }
    assert_eq!(
        (&wallet["balance"], &wallet["currency"]),
        (&json!("10.50"), &json!("EUR"))
    );
    let path = format!("/wallets/{}", wallet["wallet_id"].as_str().unwrap());
    money_moves_once_per_key(&rest, &path).await;
    pages_show_what_moved(&rest, &path).await;
    a_status_is_kept_to(&rest, &path).await;
    world.stop().await;
}

async fn money_moves_once_per_key(rest: &Rest, path: &str) {
    let credit = json!({"amount": "1.5", "type": "CREDIT", "description": "gift", "reference_id": "g1",
        "reference_type": "gift", "currency": "EUR"});
    let first = rest
        .post(&format!("{path}/transactions"), "\"k1\"", credit.clone())
        .await;
    assert_eq!((first.0, &first.1["wallet"]["balance"]), (201, &json!("12.00")));
    let again = rest.post(&format!("{path}/transactions"), "k1", credit).await;
    assert_eq!(again, first, "the same key answers the same");
    let debit = json!({"amount": "2", "type": "DEBIT"});
    let reused = rest
        .post(&format!("{path}/transactions"), "k1", debit.clone())
        .await;
    assert_eq!(code(&reused), (422, "KEY_REUSED", "caller"));
    assert_eq!(
        rest.post(&format!("{path}/transactions"), "k2", debit).await.0,
        201
    );
    assert_eq!(
        rest.post(&format!("{path}/top-up"), "k3", json!({"amount": "0.25"}))
            .await
            .0,
        201
    );
}

async fn pages_show_what_moved(rest: &Rest, path: &str) {
    let (_, page) = rest.get(&format!("{path}/transactions")).await;
    let amounts: Vec<_> = page["transactions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t["amount"].clone())
        .collect();
    assert_eq!(
        amounts,
        ["0.25", "-2.00", "1.50", "10.50"],
        "newest first, what was just written included"
    );
    assert_eq!(page["pagination"], json!({"page": 1, "limit": 20, "total": 4}));
    let (_, page) = rest
        .get(&format!(
            "{path}/transactions?type=CREDIT&status=COMPLETED&limit=2&page=2"
        ))
        .await;
    assert_eq!(page["pagination"], json!({"page": 2, "limit": 2, "total": 3}));
    assert_eq!(page["transactions"].as_array().unwrap().len(), 1);
    let (_, page) = rest
        .get(&format!("{path}/transactions?end_date=2020-01-01"))
        .await;
    assert_eq!(page["pagination"]["total"], json!(0));
}

async fn a_status_is_kept_to(rest: &Rest, path: &str) {
    let set = |status: &str| json!({"status": status, "reason": "test"});
    let (status, frozen) = rest.put(&format!("{path}/status"), set("FROZEN")).await;
    assert_eq!((status, &frozen["status"]), (200, &json!("FROZEN")));
    let spend = json!({"amount": "1", "type": "DEBIT"});
    let refused = rest.post(&format!("{path}/transactions"), "k4", spend).await;
    assert_eq!(code(&refused), (409, "WALLET_FROZEN", "caller"));
    assert_eq!(rest.put(&format!("{path}/status"), set("ACTIVE")).await.0, 200);
    let unsettled = rest.put(&format!("{path}/status"), set("CLOSED")).await;
    assert_eq!(code(&unsettled), (409, "WALLET_NOT_SETTLED", "caller"));
    let rest_of_it = json!({"amount": "10.25", "type": "DEBIT"});
    assert_eq!(
        rest.post(&format!("{path}/transactions"), "k5", rest_of_it)
            .await
            .0,
        201
    );
    assert_eq!(rest.put(&format!("{path}/status"), set("CLOSED")).await.0, 200);
}

/// Path (below the wallet's, unless it starts with `/`), key, body, status and code.
const REFUSED: &str = r#"
/wallets      |   | {"user_id": "u"}                            | 409 WALLET_EXISTS
/wallets      |   | {"user_id": "u v"}                          | 400 INVALID_ARGUMENT
/wallets      |   | {"user_id": "v", "currency": "XXX"}         | 400 INVALID_ARGUMENT
/wallets      |   | {"user_id": "v", "initial_balance": "-1"}   | 400 AMOUNT_NOT_POSITIVE
/wallets      |   | {"user_id": "v", "initial_balance": 5.5}    | 400 INVALID_ARGUMENT
/wallets      |   | {"user_id": "v", "extra": 1}                | 400 INVALID_ARGUMENT
/wallets      |   | {                                           | 400 INVALID_ARGUMENT
top-up        |   | {"amount": "1"}                             | 400 IDEMPOTENCY_KEY_REQUIRED
top-up        | k | {"amount": "0"}                             | 400 AMOUNT_NOT_POSITIVE
top-up        | k | {"amount": "1", "currency": "EUR"}          | 400 CURRENCY_MISMATCH
top-up        | k | {"amount": "1", "type": "DEBIT"}            | 400 INVALID_ARGUMENT
transactions  | k | {"amount": "1"}                             | 400 INVALID_ARGUMENT
transactions  | k | {"amount": "1", "type": "TRANSFER_IN"}      | 400 INVALID_ARGUMENT
transactions  | k | {"amount": "1", "type": "DEBIT"}            | 409 INSUFFICIENT_FUNDS
/wallets/00000000-0000-0000-0000-000000000000/top-up | k | {"amount": "1"} | 404 WALLET_NOT_FOUND
"#;

#[tokio::test]
async fn what_is_wrong_with_a_request_is_said() {
    let world = World::start().await;
    let rest = Rest::of(&world);
    let (_, wallet) = rest.post("/wallets", "", json!({"user_id": "u"})).await;
    let path = format!("/wallets/{}", wallet["wallet_id"].as_str().unwrap());
    for row in REFUSED.trim().lines() {
        let columns: Vec<&str> = row.split('|').map(str::trim).collect();
        let to = if columns[0].starts_with('/') {
            columns[0].to_owned()
        } else {
            format!("{path}/{}", columns[0])
        };
        let reply = rest
            .send("POST", &to, columns[1], TOKEN, Some(columns[2].to_owned()))
            .await;
        let (status, name, fault) = code(&reply);
        assert_eq!(
            (format!("{status} {name}").as_str(), fault),
            (columns[3], "caller"),
            "{row}"
        );
    }
    let long = json!({"amount": "1", "description": "x".repeat(20_000)});
    let reply = rest.post(&format!("{path}/top-up"), "k", long).await;
    assert_eq!(code(&reply), (413, "BODY_TOO_LARGE", "caller"));
    let transactions = format!("{path}/transactions");
    for query in "limit=0 limit=201 page=0 type=X status=X start_date=x other=1 page=x".split(' ') {
        let reply = rest.get(&format!("{transactions}?{query}")).await;
        assert_eq!(code(&reply), (400, "INVALID_ARGUMENT", "caller"), "{query}");
    }
    assert_eq!(
        code(&rest.get("/wallets/nobody").await),
        (404, "WALLET_NOT_FOUND", "caller")
    );
    assert_eq!(code(&rest.get("/nothing").await), (404, "NO_SUCH_PATH", "caller"));
    assert_eq!(
        code(&rest.put("/wallets", json!({})).await),
        (405, "METHOD_NOT_ALLOWED", "caller")
    );
    let stranger = rest
        .send("GET", "/wallets/u", "", "another-token-000000", None)
        .await;
    assert_eq!(code(&stranger), (401, "UNAUTHENTICATED", "caller"));
    world.stop().await;
}

#[tokio::test]
async fn health_and_readiness_need_no_token_and_readiness_is_proved() {
    let world = World::start().await;
    let rest = Rest::of(&world);
    assert_eq!(rest.send("GET", "/health", "", "none", None).await.0, 200);
    // Ready once relay and projector have each made a round: ask until then, within the test's own limit.
    let ready = async {
        loop {
            let (status, body) = rest.send("GET", "/ready", "", "none", None).await;
            if status == 200 {
                break body;
            }
            tokio::task::yield_now().await;
        }
    };
    let body = tokio::time::timeout(std::time::Duration::from_secs(20), ready)
        .await
        .unwrap();
    assert_eq!(body["ready"], json!(true));
    let metrics = rest.text("/metrics").await;
    assert!(
        metrics.contains("\nweir_wallet_commands_done_total 0\n"),
        "{metrics}"
    );
    assert!(
        metrics.contains("# TYPE weir_wallet_projection_lag_positions gauge"),
        "{metrics}"
    );
    let names: Vec<_> = body["checks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["name"].clone())
        .collect();
    assert_eq!(
        names,
        ["event_store", "relay", "projection", "sweep", "projection_lag"]
    );
    world.stop().await;
}
