//! That the fixtures do what the tests on top of them believe.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::sentinel::{SentinelClient, SentinelServerType};
use redis::{AsyncCommands, TlsCertificates};

use super::server::command;
use super::{RedisCluster, RedisServer, Sentinels, shared, shared_cluster};
use crate::eventually::eventually;

#[tokio::test]
async fn a_killed_server_comes_back_on_its_port_with_what_it_kept() {
    let settings = [("appendonly", "yes"), ("appendfsync", "always")];
    let mut server = RedisServer::start(&settings).await;
    let (url, pid) = (server.url(), server.pid());
    server.ask::<()>("SET a 1").await;
    server.kill();
    assert!(redis::Client::open(url.clone()).unwrap().get_multiplexed_async_connection().await.is_err());
    server.restart().await;
    assert_eq!((server.url(), server.ask::<String>("GET a").await), (url, "1".to_owned()));
    assert_ne!(server.pid(), pid);
    let dir = server.dir().to_owned();
    drop(server);
    assert!(!dir.exists());
}

#[tokio::test]
async fn the_shared_server_outlives_the_test_that_asked_first() {
    let pid = std::thread::spawn(|| {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(async { shared().await.pid() })
    })
    .join()
    .unwrap();
    assert_eq!(shared().await.pid(), pid);
    shared().await.ask::<()>("PING").await;
}

#[tokio::test]
async fn users_get_in_with_their_password_only() {
    let settings = [("requirepass", "s3cret"), ("user", "app on >pass1 ~app:* +@all"), ("maxmemory", "32mb")];
    let server = RedisServer::start(&settings).await;
    assert_eq!(server.ask::<Vec<String>>("CONFIG GET maxmemory").await[1], (32 << 20).to_string());
    let open =
        async |user: &str| redis::Client::open(server.url_as(user)).unwrap().get_multiplexed_async_connection().await;
    let mut app = open("app:pass1").await.unwrap();
    app.set::<_, _, ()>("app:a", 1).await.unwrap();
    assert_eq!(app.get::<_, String>("b").await.unwrap_err().code(), Some("NOPERM"));
    assert!(open("app:wrong").await.is_err());
}

#[tokio::test]
async fn tls_is_of_the_authority_of_the_test() {
    drop(rustls::crypto::ring::default_provider().install_default());
    let server = RedisServer::start_with_tls(&[]).await;
    let root = std::fs::read(server.authority().unwrap().file()).unwrap();
    let trust = TlsCertificates { client_tls: None, root_cert: Some(root) };
    let client = redis::Client::build_with_tls(server.url(), trust).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    assert_eq!(connection.ping::<String>().await.unwrap(), "PONG");
    let stranger = redis::Client::open(server.url()).unwrap();
    assert!(stranger.get_multiplexed_async_connection().await.is_err());
}

async fn cluster_connection(cluster: &RedisCluster) -> ClusterConnection {
    let url = cluster.url();
    let addresses = url.strip_prefix("redis-cluster://").unwrap().split(',');
    let client = ClusterClient::new(addresses.map(|address| format!("redis://{address}"))).unwrap();
    client.get_async_connection().await.unwrap()
}

#[tokio::test]
async fn the_shared_cluster_has_three_masters() {
    let mut connection = cluster_connection(shared_cluster().await).await;
    let keys = ["{a}shared", "{b}shared", "{c}shared", "{d}shared"];
    let mut used = BTreeSet::new();
    for key in keys {
        connection.set::<_, _, ()>(key, 1).await.unwrap();
        used.insert(shared_cluster().await.master_of(key).await);
    }
    assert_eq!(used, BTreeSet::from([0, 1, 2]));
}

#[tokio::test]
async fn a_cluster_serves_all_slots_and_survives_a_master() {
    let mut cluster = RedisCluster::start(1).await;
    let mut connection = cluster_connection(&cluster).await;
    for n in 0..100 {
        connection.set::<_, _, ()>(format!("key-{n}"), n).await.unwrap();
    }
    let master = cluster.master_of("key-7").await;
    let held: Option<i64> = cluster.nodes()[master].ask("GET key-7").await;
    assert_eq!(held, Some(7));
    let mut replica = cluster.nodes()[3 + master].connect().await;
    command("READONLY").exec_async(&mut replica).await.unwrap();
    eventually("it is copied", async || replica.get::<_, Option<i64>>("key-7").await.unwrap()).await;
    cluster.fail_over(master).await;
    let found = eventually("its keys are there again", async || connection.get::<_, i64>("key-7").await.ok()).await;
    assert_eq!(found, 7);
}

#[tokio::test]
async fn sentinels_move_the_master_when_told_and_when_it_dies() {
    let sentinels = Sentinels::start().await;
    let url = sentinels.url();
    let addresses = url.strip_prefix("redis-sentinel://").unwrap().strip_suffix("/main").unwrap().split(',');
    let addresses = addresses.map(|address| format!("redis://{address}")).collect();
    let mut client = SentinelClient::build(addresses, "main", None, SentinelServerType::Master).unwrap();
    let mut connection = client.get_async_connection().await.unwrap();
    connection.set::<_, _, ()>("b", 2).await.unwrap();
    assert_eq!(sentinels.master.ask::<String>("GET b").await, "2");
    sentinels.master.ask::<()>("SET a 1").await;
    sentinels.switch().await;
    assert_eq!(sentinels.replica.ask::<String>("GET a").await, "1");
    drop(sentinels);
    let mut sentinels = Sentinels::start().await;
    sentinels.master.ask::<()>("SET a 1").await;
    eventually("it is copied", async || sentinels.replica.ask::<Option<String>>("GET a").await).await;
    sentinels.fail_over().await;
    assert_eq!(sentinels.replica.ask::<String>("GET a").await, "1");
}

/// Tells the process, started by the test below, that it is to be killed.
const VICTIM: &str = "RYEMILL_TEST_VICTIM";

#[tokio::test]
async fn servers_and_folders_end_with_a_killed_test_process() {
    if std::env::var_os(VICTIM).is_some() {
        let server = shared().await;
        println!("KEPT {} {}", server.pid(), server.dir().display());
        return std::future::pending().await;
    }
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["servers_and_folders_end_with_a_killed_test_process", "--nocapture"])
        .env(VICTIM, "")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(victim.stdout.take().unwrap()).lines();
    let kept = lines.find_map(|line| Some(line.unwrap().split_once("KEPT ")?.1.to_owned())).unwrap();
    let (pid, dir) = kept.split_once(' ').unwrap();
    let process = format!("/proc/{pid}");
    assert!(Path::new(&process).exists() && Path::new(dir).exists());
    victim.kill().unwrap();
    victim.wait().unwrap();
    eventually("the server has ended", async || (!Path::new(&process).exists()).then_some(())).await;
    eventually("its folder is gone", async || (!Path::new(dir).exists()).then_some(())).await;
}
