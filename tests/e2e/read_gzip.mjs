/**
 * Read a stream with Node's own HTTP client, unpack it as strictly as zlib does, and print what comes, as it comes.
 * It fails if the gzip stream has no proper end.
 */
import http from 'node:http';
import { createGunzip } from 'node:zlib';

http.get(process.argv[2], { headers: { 'Accept-Encoding': 'gzip' } }, (answer) => {
  if (answer.headers['content-encoding'] !== 'gzip') throw new Error('it is not packed');
  answer.on('aborted', () => { throw new Error('it was cut off'); });
  answer.pipe(createGunzip()).on('data', (data) => process.stdout.write(data));
});
