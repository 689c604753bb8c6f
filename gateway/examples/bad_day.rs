//! A simulator of Gemini that has a bad day, for the page's test: overloads, quota, errors of large prompts.
//!
//! Prints its URL and runs until standard input ends.

use std::io::Read;
use std::time::Duration;

use tower_gemini::sim::{Fault, Rule, Simulator};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let soon = Duration::from_millis(120);
    let simulator = Simulator::builder()
        .seed(11)
        .head_latency(Duration::from_millis(20))
        // What nobody has heard of is not found, and nothing else by chance: the test reads its verdict.
        .rule(Rule::new(Fault::not_found()).for_model("gemini-9"))
        .rule(Rule::new(Fault::rate_limited().with_limit(90).with_retry_in(soon)).with_probability(0.06))
        .rule(Rule::new(Fault::overloaded().with_retry_after(soon)).with_probability(0.25))
        .rule(
            Rule::new(Fault::internal().with_retry_after(soon))
                .for_model("gemini-3.8-flash")
                .with_probability(0.3),
        )
        .rule(Rule::new(Fault::daily_quota_exhausted()).for_model("gemini-3.7-flash"))
        .rule(Rule::new(Fault::blocked_prompt()).with_probability(0.03))
        .build()?;
    let server = simulator.serve().await?;
    println!("{}", server.base_url());
    // Whoever has started it closes this, or is gone.
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    Ok(())
}
