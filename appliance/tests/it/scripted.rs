//! A billing that answers what the test wrote down, and remembers what it was asked.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

/// What was asked: request line, authorization, body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) line: String,
    pub(crate) authorization: String,
    pub(crate) body: String,
}

/// One answer for one request line (`GET /path`); an empty status hangs up without an answer, once.
#[derive(Clone)]
pub(crate) struct Answer {
    pub(crate) line: &'static str,
    pub(crate) status: &'static str,
    pub(crate) body: String,
}

pub(crate) struct Scripted {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Scripted {
    /// Answers until the test's process ends.
    pub(crate) fn start(answers: Vec<Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        std::thread::spawn(move || {
            let mut answers = answers;
            for stream in listener.incoming() {
                serve(&stream.unwrap(), &mut answers, &log);
            }
        });
        Self { address, asked }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

fn serve(stream: &TcpStream, answers: &mut Vec<Answer>, log: &Mutex<Vec<Asked>>) {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first).unwrap();
    let line = first
        .rsplit_once(' ')
        .map(|(line, _)| line.to_owned())
        .unwrap_or_default();
    let (mut authorization, mut length) = (String::new(), 0);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).unwrap();
        let Some((name, value)) = header.trim_end().split_once(": ") else {
            break;
        };
        match name.to_ascii_lowercase().as_str() {
            "authorization" => authorization = value.to_owned(),
            "content-length" => length = value.parse().unwrap(),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    log.lock().unwrap().push(Asked {
        line: line.clone(),
        authorization,
        body: String::from_utf8(body).unwrap(),
    });
    let missing = Answer {
        line: "",
        status: "404 Not Found",
        body: "{}".to_owned(),
    };
    let answer = answers.iter().position(|a| a.line == line);
    let answer = match answer {
        Some(at) if answers[at].status.is_empty() => answers.remove(at),
        Some(at) => answers[at].clone(),
        None => missing,
    };
    if !answer.status.is_empty() {
        let mut stream = stream;
        let head = format!(
            "HTTP/1.1 {}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            answer.status,
            answer.body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(answer.body.as_bytes()).unwrap();
    }
}
