/**
 * Read a stream with Node's HTTP client, decompress it with zlib, and print the data as it arrives.
 * The script fails if the gzip stream has no valid end.
 */
import http from 'node:http';
import { createGunzip } from 'node:zlib';

http.get(process.argv[2], { headers: { 'Accept-Encoding': 'gzip' } }, (answer) => {
  if (answer.headers['content-encoding'] !== 'gzip') throw new Error('it is not packed');
  answer.on('aborted', () => { throw new Error('it was cut off'); });
  answer.pipe(createGunzip()).on('data', (data) => process.stdout.write(data));
});
