//! What must hold whatever becomes of Redis: the real binary, as a server and two workers under load, on a real Redis
//! that is killed, moved, flushed and filled.

mod flushed;
mod full;
mod killed;
mod load;
mod moved;
mod refused;
