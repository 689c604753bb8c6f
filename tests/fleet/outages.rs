use crate::world::secs;
#[tokio::test(start_paused = true)]
async fn x() { let _ = secs(1); }
