//! A configuration with faults.

use super::Site;

/// Five faults; a secret in each value that could hold one.
const FAULTY: &str = "\
WORKER_CONCURRENCY=0
LEASE=soon
BROKER_URL=mongodb://ryemill:hunter2-of-the-broker@db.internal/jobs
MAILER_URL=smtp://mailer:hunter2-of-the-mailer@mail.internal:port
SECRET_STRIPE=hunter2
API_KEY=hunter2-of-the-api
SECRET_GOOD=hunter2-that-is-fine
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_start_tells_all_faults_of_the_env_file_and_no_secret() {
    let site = Site::new(&[]);
    std::fs::write(site.path().join(".env"), FAULTY).unwrap();
    for command in ["server", "worker", "dev", "demo", "check"] {
        let mut process = site.start(&[command]);
        assert_eq!(process.exit().await.code(), Some(2), "{command}");
        let said = process.console();
        assert!(said.contains("5 faults"), "{command}: {said}");
        for name in ["WORKER_CONCURRENCY=0", "LEASE=soon", "BROKER_URL", "MAILER_URL", "SECRET_STRIPE"] {
            let line = said.lines().find(|line| line.trim_start().starts_with(name));
            let line = line.unwrap_or_else(|| panic!("{command} does not tell of {name}: {said}"));
            assert!(line.contains("(.env)") && line.contains("; accepted: "), "{line}");
        }
        assert!(!said.contains("hunter2"), "{command}: {said}");
        assert!(!site.path().join("data").exists(), "{command} began to work");
    }
}
