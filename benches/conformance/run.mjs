// Runs the public suite http-cache-tests against a running gateway, with `cache: {}` on a route to the suite's own origin
// and nothing else set (or what `--cache` says), and prints what passed. Usage: node run.mjs BINARY [--folder DIR] [--id TEST]
// [--json FILE] [--cache YAML] [--required N] [--optimal N]; with the last two it fails when fewer pass. With --id, one test alone, with its messages.
import { spawn } from 'node:child_process'
import fs from 'node:fs'
import net from 'node:net'
import os from 'node:os'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { pathToFileURL } from 'node:url'

const text = { type: 'string' }
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { folder: text, id: text, json: text, cache: text, required: text, optimal: text }
})
const binary = path.resolve(positionals[0] ?? 'target/release/tollgate')
const suite = path.resolve(values.folder ?? 'target/conformance', 'node_modules/http-cache-tests')
const load = file => import(pathToFileURL(path.join(suite, file)))

const freePort = () => new Promise((resolve, reject) => {
  const server = net.createServer()
  server.on('error', reject)
  server.listen(0, '127.0.0.1', () => {
    const { port } = server.address()
    server.close(() => resolve(port))
  })
})

const answers = port => new Promise(resolve => {
  const socket = net.connect(port, '127.0.0.1')
  socket.on('connect', () => { socket.destroy(); resolve(true) })
  socket.on('error', () => resolve(false))
})

async function started (name, process, port) {
  for (let tries = 0; tries < 200; tries++) {
    if (process.exitCode !== null) throw new Error(`${name} has ended`)
    if (await answers(port)) return
    await sleep(50)
  }
  throw new Error(`${name} does not answer on port ${port}`)
}

// A test counts when those that it depends on have passed, as on the suite's own pages.
function passed (test, byId, results, seen = new Set()) {
  if (results[test.id] !== true || seen.has(test.id)) return false
  seen.add(test.id)
  return (test.depends_on ?? []).every(id => byId.has(id) ? passed(byId.get(id), byId, results, new Set(seen)) : true)
}

function why (test, results) {
  const result = results[test.id]
  if (result === undefined) return 'was not run'
  if (result !== true) return result.join(': ')
  return `depends on ${test.depends_on.join(', ')}`
}

function report (title, suites, byId, results) {
  const tests = suites.flatMap(one => one.tests).filter(test => test.browser_only !== true)
  const count = {}
  for (const kind of ['required', 'optimal', 'check']) {
    const of = tests.filter(test => (test.kind ?? 'required') === kind)
    const failed = of.filter(test => !passed(test, byId, results))
    const alone = of.filter(test => results[test.id] === true).length
    count[kind] = of.length - failed.length
    const aside = alone === count[kind] ? '' : ` (${alone} when tests that depend on failed ones count)`
    console.log(`${title}, ${kind}: ${count[kind]} of ${of.length}${aside}`)
    if (kind !== 'check') failed.forEach(test => console.log(`  ${test.id}: ${test.name}: ${why(test, results)}`))
  }
  return count
}

const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'tollgate-conformance-'))
const children = []
function start (command, args, options) {
  const log = fs.openSync(path.join(dir, `${path.basename(command)}-${children.length}.log`), 'w')
  const child = spawn(command, args, { ...options, stdio: ['ignore', log, log] })
  children.push(child)
  return child
}

async function main () {
  const [originPort, port] = [await freePort(), await freePort()]
  const env = { ...process.env, npm_config_port: `${originPort}`, npm_config_protocol: 'http', npm_config_pidfile: path.join(dir, 'origin.pid') }
  const origin = start(process.execPath, ['--no-warnings', 'server/server.mjs'], { cwd: suite, env })
  const file = path.join(dir, 'tollgate.yaml')
  fs.writeFileSync(file, `listeners: [ "127.0.0.1:${port}" ]
admin: { enabled: false }
access_log: { enabled: false }
pingora: { pid_file: ${dir}/pid, upgrade_sock: ${dir}/sock }
services: { origin: { urls: [ "http://127.0.0.1:${originPort}" ] } }
routes: [ { match: { path: /* }, service: origin, cache: ${values.cache ?? '{}'} } ]
`)
  await started('the origin', origin, originPort)
  await started('the gateway', start(binary, ['-c', file]), port)

  const suites = [...(await load('tests/index.mjs')).default]
  const surrogate = (await load('tests/surrogate-control.mjs')).default
  const all = [...suites, surrogate]
  const byId = new Map(all.flatMap(one => one.tests).map(test => [test.id, test]))
  const { runTests, getResults } = await load('client/runner.mjs')
  const fetch = (await import(pathToFileURL(path.join(suite, '../node-fetch/lib/index.mjs')))).default
  if (values.id !== undefined) {
    const test = byId.get(values.id)
    if (test === undefined) throw new Error(`there is no test '${values.id}'`)
    test.dump = true
    await runTests([{ tests: [test] }], fetch, false, `http://127.0.0.1:${port}`)
    console.log(getResults())
    return getResults()[test.id] === true
  }
  await runTests(all, fetch, false, `http://127.0.0.1:${port}`)
  const results = getResults()
  if (values.json !== undefined) fs.writeFileSync(values.json, JSON.stringify(results, null, 2) + '\n')
  const count = report('http-cache-tests', suites, byId, results)
  report('its Surrogate-Control tests', [surrogate], byId, results)
  return ['required', 'optimal'].every(kind => count[kind] >= Number(values[kind] ?? 0))
}

let good = false
try {
  good = await main()
} catch (e) {
  console.error(`conformance: ${e.message}`)
  for (const log of fs.readdirSync(dir).filter(name => name.endsWith('.log'))) {
    console.error(`${log}:\n${fs.readFileSync(path.join(dir, log), 'utf8').slice(-2000)}`)
  }
} finally {
  children.forEach(child => child.kill('SIGKILL'))
  fs.rmSync(dir, { recursive: true, force: true })
}
process.exit(good ? 0 : 1)
