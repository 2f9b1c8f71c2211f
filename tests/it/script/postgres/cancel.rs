//! What ends an answer that is given up must not end the statement that comes next on its connection.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use super::server::{self, PASSWORD};
use super::shop_at;

/// How long a request to end a statement is on its way.
const LATE: Duration = Duration::from_millis(150);

/// Gives answers up, each before a statement that must come to its end. How many processes of the server that took.
fn given_up(url: &str, rows: usize, times: usize) -> usize {
    let body = format!(
        r#"
        let processes = #{{}};
        for i in 0..{times} {{
            try {{ sql::query("shop", "SELECT '1'::money AS m FROM generate_series(1, {rows})") }} catch {{}}
            // Until the connection is clean, and is taken again.
            sleep("20ms");
            processes[`${{sql::query("shop", "SELECT pg_sleep(0.2), pg_backend_pid() AS id")[0].id}}`] = true;
        }}
        processes.len()"#
    );
    let shop = shop_at(url, &server::shared());
    usize::try_from(shop.run(&body).as_u64().unwrap()).unwrap()
}

#[test]
fn a_late_request_to_end_an_answer_ends_nothing_else() {
    let server = server::shared();
    let port = late_cancels(server.port);
    given_up(&format!("postgres://ryemill:{PASSWORD}@127.0.0.1:{port}/postgres"), 1, 5);
}

/// The connections are used again, with and without TLS: a lost one would be another process.
#[test]
fn an_answer_given_up_costs_no_connection() {
    let server = server::shared();
    for mode in ["disable", "require"] {
        let url = format!("postgres://ryemill:{PASSWORD}@127.0.0.1:{}/postgres?sslmode={mode}", server.port);
        let processes = given_up(&url, 100_000, 20);
        assert!(processes < 10, "{mode}: {processes}");
    }
}

/// A server's port that takes requests to end a statement later than all others, but takes them.
fn late_cancels(server: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            thread::spawn(move || between(client, server));
        }
    });
    port
}

fn between(mut client: TcpStream, server: u16) -> io::Result<()> {
    // Length and kind of the first message; the kind of a request to end a statement is 1234 and 5678.
    let mut head = [0; 8];
    client.read_exact(&mut head)?;
    if head[4..] == [0x04, 0xd2, 0x16, 0x2e] {
        thread::sleep(LATE);
    }
    let mut server = TcpStream::connect(("127.0.0.1", server))?;
    server.write_all(&head)?;
    let (mut answers, mut asker) = (server.try_clone()?, client.try_clone()?);
    thread::spawn(move || {
        let _ = io::copy(&mut answers, &mut asker);
        let _ = asker.shutdown(Shutdown::Both);
    });
    io::copy(&mut client, &mut server)?;
    server.shutdown(Shutdown::Write)
}
