// A preload that gives the example of streaming a video the file VIDEO_FILE for the one that its author has at home.
import fs from 'node:fs';

const authors = '/home/alexhultman/Downloads/Sintel.2010.720p.mkv';
const { readFileSync } = fs;
fs.readFileSync = (path, ...rest) => readFileSync(path === authors ? process.env.VIDEO_FILE : path, ...rest);
