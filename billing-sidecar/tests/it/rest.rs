//! REST: creation once, errors in JSON, limits.

use serde_json::json;

use crate::world::{TOKEN, World, call};

#[tokio::test]
async fn an_account_is_created_once_and_another_one_is_refused() {
    let world = World::empty().await;
    let account = json!({"account": "acme", "login": "Acme", "currency": "USD", "initial_credit": "1.00",
                         "tariff": "t@1", "mode": "ENFORCE"});
    let (status, body) = world.call("POST", "/api/accounts", Some(account.clone())).await;
    assert_eq!(
        (status, &body["error"]["fault"]),
        (422, &json!("client")),
        "no tariff yet: {body}"
    );
    let prices = json!({"currency": "USD", "per_row": "0.00001"});
    world.put("/api/tariffs/t@1", prices.clone()).await;
    world.put("/api/tariffs/t@1", prices).await;
    let (status, _) = world
        .call("PUT", "/api/tariffs/t@1", Some(json!({"currency": "USD"})))
        .await;
    assert_eq!(status, 409);
    let first = world.post("/api/accounts", account.clone()).await;
    let again = world.post("/api/accounts", account.clone()).await;
    assert_eq!(first, again);
    assert_eq!(
        (&first["balance"], &first["status"]),
        (&json!("1.00"), &json!("ACTIVE"))
    );
    let mut other = account.clone();
    other["initial_credit"] = json!("2.00");
    assert_eq!(world.call("POST", "/api/accounts", Some(other)).await.0, 409);
    let mut same_login = account;
    same_login["account"] = json!("acme2");
    same_login["login"] = json!("ACME ");
    assert_eq!(world.call("POST", "/api/accounts", Some(same_login)).await.0, 409);
}

#[tokio::test]
async fn a_creation_that_the_wallet_missed_is_finished_by_asking_again_or_by_a_restart() {
    use crate::fake_wallet::Fault;
    let mut world = World::empty().await;
    world
        .put(
            "/api/tariffs/t@1",
            json!({"currency": "USD", "per_row": "0.00001"}),
        )
        .await;
    world.wallet.wallet.script("create", [Fault::LostReply]);
    let account = json!({"account": "demo", "login": "demo", "currency": "USD", "initial_credit": "5.00",
                         "tariff": "t@1", "mode": "enforce"});
    assert_eq!(world.call("POST", "/api/accounts", Some(account)).await.0, 503);
    world.restart().await;
    assert_eq!(world.get("/api/accounts/demo").await["balance"], "5.00");
}

#[tokio::test]
async fn a_top_up_is_idempotent_by_key() {
    let world = World::demo().await;
    let top_up = |amount: &str| json!({"amount": amount, "key": "order-7"});
    let path = "/api/accounts/demo/top-up";
    assert_eq!(world.post(path, top_up("1.00")).await["balance"], "6.00");
    assert_eq!(world.post(path, top_up("1.00")).await["balance"], "6.00");
    let (status, body) = world.call("POST", path, Some(top_up("2.00"))).await;
    assert_eq!((status, &body["error"]["code"]), (422, &json!("KEY_REUSED")));
    let (status, _) = world
        .call("POST", path, Some(json!({"amount": "-1.00", "key": "x"})))
        .await;
    assert_eq!(status, 422);
}

#[tokio::test]
async fn errors_are_json_and_the_token_is_asked_for() {
    let world = World::demo().await;
    let base = format!("http://{}", world.running().rest_addr);
    let ask = move |path: &'static str, token: Option<&'static str>| {
        let url = format!("{base}{path}");
        async move {
            tokio::task::spawn_blocking(move || call("GET", &url, token, None))
                .await
                .unwrap()
        }
    };
    for token in [None, Some("wrong"), Some("test-toke"), Some("")] {
        let (status, body) = ask("/api/accounts", token).await;
        assert_eq!(
            (status, &body["error"]["code"]),
            (401, &json!("UNAUTHORIZED")),
            "{token:?}"
        );
    }
    assert_eq!(ask("/api/nothing", Some(TOKEN)).await.0, 404);
    assert_eq!(ask("/api/accounts/nobody", Some(TOKEN)).await.0, 404);
    assert_eq!(ask("/nothing", None).await.1["error"]["code"], "NOT_FOUND");
    assert_eq!(ask("/health", None).await.0, 200);
    assert_eq!(ask("/ready", None).await.0, 200);
    assert!(ask("/", None).await.1.as_str().unwrap().contains("<html"));
    let metrics = ask("/metrics", None).await.1;
    assert!(
        metrics
            .as_str()
            .unwrap()
            .contains("weir_billing_entries_rated_total 0")
    );
    let long = json!({"amount": "1.00", "key": "k".repeat(70_000)});
    let (status, body) = world.call("POST", "/api/accounts/demo/top-up", Some(long)).await;
    assert_eq!((status, &body["error"]["fault"]), (413, &json!("client")));
}
