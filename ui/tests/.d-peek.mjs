import { createServer } from 'node:http';
import { readFile, mkdir } from 'node:fs/promises';
import { launch } from './browser.mjs';
const dist='/tmp/w5/ui/dist-devhost';
const types={js:'text/javascript',css:'text/css',html:'text/html',svg:'image/svg+xml'};
const server=createServer(async(q,a)=>{try{const p=q.url.split('?')[0];const b=await readFile(dist+(p==='/'?'/index.html':p));a.setHeader('content-type',types[p.split('.').pop()]??'text/html');a.end(b);}catch{a.statusCode=404;a.end();}}).listen(0);
const port=server.address().port;
await mkdir('/tmp/d6/d/f',{recursive:true});
const {browser}=await launch('/tmp/d6/d/f');
const now=Date.now(); const iso=(ms)=>new Date(now+ms).toISOString();
const base={id:'ABCDEFGH',kind:'run',state:'open',digest:'00',question:'Codex wants pg-prod for 1 h in ~/work/shop',app:'codex',program:'/home/ann/.local/bin/codex',verified:false,chain:[{pid:43121,name:'keyward'},{pid:43120,name:'node'},{pid:3300,name:'zsh'},{pid:2100,name:'gnome-terminal-server'}],project:'/home/ann/work/shop',branch:'fix/orders',command:'codex --full-auto "run the migration on prod"',reason:'run the migration that adds orders.note',said:['command','reason'],wanted:[{profile:'pg-prod',issuer:'static',reach:['the stored secret pg-prod, in DATABASE_URL'],delivery:'env',gives_away:'the program and all it starts hold the credential itself; it cannot be taken back before it ends',ttl_s:3600,confirm:false,allowed_before:3,denied_before:1}],merged:1,asked_at:iso(0),changed_at:iso(0),until:iso(118000),choices:['once','run','project'],confirm:false};
const cases={
 plain:[base,0],
 full:[{...base,merged:3,verified:true,outer_run:'R',outer_app:'claude',question:'claude wants pg-prod and anthropic for 1 h in ~/work/shop',confirm:true,choices:['once','run'],wanted:[{...base.wanted[0],confirm:true,allowed_before:0,denied_before:0},{profile:'anthropic',issuer:'anthropic-federation',reach:['api.anthropic.com','at most 60 requests a minute','models: claude-haiku-*'],delivery:'gateway',gives_away:'a token for calls through Keyward by them alone',ttl_s:86400,confirm:false,allowed_before:12,denied_before:0}],file_change:[' [run.dev]','-profiles = ["pg-dev"]','+profiles = ["pg-prod", "anthropic"]']},2],
 hostile:[{...base,question:'\u202eevil\u2066<b>'.repeat(8),app:'x'.repeat(300),command:'rm -rf \u202e\n\u001b[2J'.repeat(40),reason:'y'.repeat(900),project:'/'+'long/'.repeat(60)},0],
 over:[{...base,state:'denied'},0],
};
for (const [name,[approval,others]] of Object.entries(cases)) for (const theme of ['light','dark']) {
 const c=await browser.newContext({viewport:{width:460,height:720},colorScheme:theme,reducedMotion:'reduce'});
 const p=await c.newPage();
 p.on('console',m=>{if(!/Failed to load/.test(m.text()))console.log(name,m.text())}); p.on('pageerror',e=>console.log(name,e.stack));
 await p.route('**/command/card',r=>r.fulfill({json:{now:iso(0),theme:'system',home:'/home/ann',approval,others}}));
 await p.route('**/events',r=>r.fulfill({contentType:'text/event-stream',body:'retry: 600000\n\n'}));
 await p.goto(`http://127.0.0.1:${port}/card.html#ABCDEFGH`);
 await p.locator('h1').waitFor();
 await p.screenshot({path:`/tmp/d6/d/card-${name}-${theme}-asleep.png`});
 await p.waitForTimeout(900);
 await p.screenshot({path:`/tmp/d6/d/card-${name}-${theme}.png`});
 if(theme==='light')console.log(name, await p.evaluate(()=>[document.activeElement?.textContent, document.documentElement.scrollWidth, innerWidth]));
 await c.close();
}
await browser.close(); server.close();
