//! The limits a job and its run are held to, whatever its script says: one plain struct, set from the
//! environment, handed to the server (payloads) and the worker (everything else).
//! No I/O and no checking here; each limit is checked where the thing it bounds comes in.

/// Upper bounds for one job or one run of it. Sizes are in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Nesting of arrays and objects in a payload or a result; a scalar has depth 0.
    pub max_depth: usize,
    /// A payload, as compact JSON.
    pub max_payload: usize,
    /// A result, as compact JSON.
    pub max_result: usize,
    /// A thrown value, as compact JSON.
    pub max_thrown: usize,
    /// Log lines a second of one run.
    pub log_rate: u32,
    /// Log kept for one job; beyond it the oldest lines go and are counted.
    pub log_bytes: usize,
    /// One log line: message and fields.
    pub log_line: usize,
    /// Stored progress reports a second of one run; between two the last one wins.
    pub progress_rate: u32,
    /// Files of one job.
    pub max_files: u32,
    /// All files of one job together.
    pub max_files_bytes: u64,
    /// Jobs that one run may submit.
    pub max_children: u32,
    /// Generations below a job that came in over HTTP, which is generation 0.
    pub max_tree_depth: u32,
}

impl Default for Limits {
    fn default() -> Self {
        const KIB: usize = 1 << 10;
        const MIB: usize = 1 << 20;
        Self {
            max_depth: 64,
            max_payload: MIB,
            max_result: MIB,
            max_thrown: 64 * KIB,
            log_rate: 1000,
            log_bytes: 8 * MIB,
            log_line: 16 * KIB,
            progress_rate: 10,
            max_files: 100,
            max_files_bytes: 1 << 30,
            max_children: 1000,
            max_tree_depth: 16,
        }
    }
}
