// Runs an exported n8n workflow as n8n does, as far as our examples go: expressions, the Code node's JavaScript, and real HTTP requests.
// What it does not know it refuses. It starts with the first node; a webhook is a server on 127.0.0.1, whose address it prints.
//
//   node n8n.js WORKFLOW.json    $UNSTUCK_KEY is the credential, all other variables are the workflow's $env
//
// Prints a line of JSON for every node that ran: its name and the items that it gave.
const fs = require('fs');
const http = require('http');

const workflow = JSON.parse(fs.readFileSync(process.argv[2], 'utf8'));
const { UNSTUCK_KEY: key, ...env } = process.env;
const AsyncFunction = (async () => {}).constructor;
const nodes = new Map(workflow.nodes.map((n) => [n.name, n]));

class Run {
  constructor(response) {
    this.given = new Map();
    this.response = response;
  }

  // evaluate is the value of a parameter: text that begins with = holds expressions, and one that is nothing else keeps its type.
  evaluate(text, item) {
    if (typeof text !== 'string' || !text.startsWith('=')) return text;
    const scope = {
      $json: item.json, $env: env, $execution: { id: '42' },
      $: (name) => {
        if (!this.given.has(name)) throw new Error(`no node ${name} has run`);
        return { first: () => this.given.get(name)[0] };
      },
    };
    const value = (code) => new Function(...Object.keys(scope), `return (${code})`)(...Object.values(scope));
    const whole = /^\{\{((?:(?!\}\}).)*)\}\}$/s.exec(text.slice(1));
    if (whole) return value(whole[1]);
    return text.slice(1).replace(/\{\{(.*?)\}\}/gs, (_, code) => String(value(code)));
  }

  async node(name, items) {
    const node = nodes.get(name);
    const [outputs, all] = await this.tried(node, items);
    this.given.set(name, all);
    console.log(JSON.stringify({ node: name, items: all.map((i) => i.json) }));
    const links = workflow.connections[name]?.main ?? [];
    for (const [i, out] of outputs.entries()) {
      for (const to of out.length > 0 ? links[i] ?? [] : []) await this.node(to.node, out);
    }
  }

  // tried gives what a node gives; one that fails has its error as an item of its second output, where it is set so.
  async tried(node, items) {
    try {
      return await this.do(node, node.parameters, items);
    } catch (err) {
      if (node.onError !== 'continueErrorOutput') throw err;
      const failed = items.map((i) => ({ json: { ...i.json, error: err.message } }));
      return [[[], failed], failed];
    }
  }

  async do(node, p, items) {
    const same = [[items], items];
    switch (node.type.replace('n8n-nodes-base.', '')) {
      case 'manualTrigger': case 'webhook': return same;
      case 'code': {
        const self = { helpers: { getBinaryDataBuffer: async (i, name) => Buffer.from(items[i].binary[name].data, 'base64') } };
        const made = await new AsyncFunction('$input', '$env', 'require', p.jsCode).call(self, { first: () => items[0], all: () => items }, env, require);
        return [[made], made];
      }
      case 'if': {
        const [c, ...more] = p.conditions.conditions;
        if (more.length > 0 || c.operator.type !== 'boolean' || c.operator.operation !== 'true') throw new Error('a condition that is not known here');
        const holds = (i) => this.evaluate(c.leftValue, i) === true;
        return [[items.filter(holds), items.filter((i) => !holds(i))], items];
      }
      case 'set': {
        const made = items.map((i) => ({
          json: Object.fromEntries(p.assignments.assignments.map((a) => {
            const v = this.evaluate(a.value, i);
            return [a.name, a.type === 'number' ? Number(v) : v];
          })),
        }));
        return [[made], made];
      }
      case 'respondToWebhook':
        this.response.writeHead(p.options.responseCode, { 'Content-Type': 'application/json' });
        this.response.end(this.evaluate(p.responseBody, items[0]));
        return same;
      case 'httpRequest': {
        const made = [];
        for (const item of items) made.push({ json: await this.request(node, p, item) });
        return [[made], made];
      }
    }
    throw new Error(`a node of type ${node.type} is not known here`);
  }

  async request(node, p, item) {
    if (p.authentication !== 'genericCredentialType' || p.genericAuthType !== 'httpHeaderAuth' || !node.credentials.httpHeaderAuth) {
      throw new Error(`${node.name} has no credential`);
    }
    const headers = { Authorization: `Bearer ${key}`, Accept: 'application/json' };
    let body;
    if (p.sendBody) {
      body = this.evaluate(p.jsonBody, item);
      headers['Content-Type'] = 'application/json';
      JSON.parse(body);
    }
    const res = await fetch(this.evaluate(p.url, item), { method: p.method, headers, body });
    const text = await res.text();
    if (!res.ok) throw new Error(`${node.name}: ${res.status} ${text}`);
    return JSON.parse(text);
  }
}

const first = workflow.nodes[0];
const fail = (err) => { console.log(JSON.stringify({ failed: err.message })); process.exitCode = 1; };
if (first.type.endsWith('.webhook')) {
  const server = http.createServer((req, res) => {
    const chunks = [];
    req.on('data', (c) => chunks.push(c));
    req.on('end', () => {
      if (req.method !== first.parameters.httpMethod || req.url !== `/webhook/${first.parameters.path}`) return res.writeHead(404).end();
      const raw = Buffer.concat(chunks);
      const item = { json: { headers: req.headers, body: {} } };
      if (first.parameters.options.rawBody) item.binary = { data: { data: raw.toString('base64'), mimeType: req.headers['content-type'] } };
      new Run(res).node(first.name, [item]).catch(fail);
    });
  });
  server.listen(0, '127.0.0.1', () => console.log(JSON.stringify({ url: `http://127.0.0.1:${server.address().port}/webhook/${first.parameters.path}` })));
} else {
  new Run().node(first.name, [{ json: {} }]).catch(fail);
}
