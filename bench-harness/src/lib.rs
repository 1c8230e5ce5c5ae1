//! Measures producers and consumers of a broker: rates, latency percentiles, and the broker's own CPU and memory.
//!
//! | file | what it is |
//! |---|---|
//! | `workload` | the workloads as data: roles that write and read |
//! | `wire` | encoded frames and their answers |
//! | `lane` | what one connection says, and how it checks the answers |
//! | `load` | one thread that drives many connections, open or closed loop |
//! | `client` | foreign clients as the load |
//! | `admin` | topics, and reading back what was written |
//! | `broker`, `kafka`, `floor` | the contenders: how they start and stop |
//! | `trial` | one run of one workload against one broker |
//! | `seat` | a contender's broker between runs |
//! | `cluster` | three nodes of a contender: kills, cuts of the network, restarts, many partitions |
//! | `network` | a network of their own for the nodes of a broker, and how one of them is cut off |
//! | `compare`, `sweep`, `knee` | several brokers in turns, parameters over lists, rates up to a bound |
//! | `duel`, `gate` | two brokers in turns of a tenth of a second; whether one became dearer than the repository says |
//! | `meter`, `process`, `samples` | what the load counts and the broker uses, read four times a second |
//! | `live` | what is shown during a run |
//! | `report`, `goals` | the result as a file, and what it is judged by |
//! | `markdown`, `html` | the result as people read it |
//! | `figures` | the columns of every table |
//! | `limits` | what the machine can do at all |
//! | `host` | CPUs, and what a result says of its machine |

pub mod admin;
pub mod broker;
pub mod client;
pub mod cluster;
pub mod compare;
pub mod duel;
pub mod figures;
pub mod floor;
pub mod gate;
pub mod goals;
pub mod host;
pub mod html;
pub mod kafka;
pub mod knee;
pub mod lane;
pub mod limits;
pub mod live;
pub mod load;
pub mod markdown;
pub mod meter;
pub mod network;
pub mod process;
pub mod report;
pub mod samples;
pub mod seat;
pub mod sweep;
pub mod trial;
pub mod wire;
pub mod workload;
