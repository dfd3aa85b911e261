// Nodemailer with its pool, as its documentation has it for bulk: as many mails at once as the pool takes, each built
// by Nodemailer. Arguments: PORT COUNT CONNECTIONS LETTER MESSAGES-A-CONNECTION BEFORE. It sends as many mails BEFORE
// its time is taken, for its compiler to have seen the code, over connections of their own.
import { readFileSync } from "node:fs";
import nodemailer from "nodemailer";

const [port, count, connections] = process.argv.slice(2, 5).map(Number);
const letter = JSON.parse(readFileSync(process.argv[5], "utf8"));
const [maxMessages, before] = process.argv.slice(6, 8).map(Number);
const host = "127.0.0.1";
const options = {
  host, port, secure: false, ignoreTLS: true, name: "localhost", pool: true, maxConnections: connections, maxMessages,
};

async function send(pool, total) {
  let next = 0;
  let accepted = 0;
  async function work() {
    while (next < total) {
      const number = next++;
      const to = `visitor${number}@host${number % letter.domains}.example.com`;
      const { subject, text, html } = letter;
      const { response } = await pool.sendMail({ from: letter.from, to, subject, text, html });
      if (!response.startsWith("250")) throw new Error(`not accepted: ${response}`);
      accepted++;
    }
  }
  // More of them than connections, so that one is built while another is under way.
  await Promise.all(Array.from({ length: connections * 4 }, work));
  return accepted;
}

const first = nodemailer.createTransport(options);
await send(first, before);
first.close();

const pool = nodemailer.createTransport(options);
const begun = process.hrtime.bigint();
const used = process.cpuUsage();
const accepted = await send(pool, count);
const seconds = Number(process.hrtime.bigint() - begun) / 1e9;
const { user, system } = process.cpuUsage(used);
console.log("BENCH " + JSON.stringify({ accepted, seconds, cpu_seconds: (user + system) / 1e6 }));
pool.close();
